//! `weir-drill NAME`: what `./dev drill` builds and runs. Exit status 0 only if all that was promised held.

use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "weir-drill", about = "Weir on real parts, while everything is killed that can be")]
enum Drill {
    /// Everything is killed, over and over, under load; no event may be lost, none counted twice
    Crash(weir_drills::crash::Args),
    /// Paused under load, killed while it is paused, resumed with the present first
    Pause(weir_drills::pause::Args),
    /// The broker is away under load, then ClickHouse; who sends hits does not notice
    Outage(weir_drills::outage::Args),
    /// Copies under load, then ClickHouse's disk is lost, and a copy and the log give the table back
    Backup(weir_drills::backup::Args),
    /// A forgotten pause on a log that keeps little ends by itself, and nothing is lost
    Retention(weir_drills::retention::Args),
    /// To another schema version and back and there again, beside everything else
    Conversion(weir_drills::conversion::Args),
    /// The whole day of a conversion, beside what others announce for it: a month of traffic, a copy, a pause in the middle
    MaintenanceDay(weir_drills::maintenance_day::Args),
    /// One log, replayed over and over in different ways; every table must be the same
    Replay(weir_drills::replay::Args),
}

fn main() -> ExitCode {
    let drilled = match Drill::parse() {
        Drill::Crash(args) => weir_drills::crash::main(&args),
        Drill::Pause(args) => weir_drills::pause::main(&args),
        Drill::Outage(args) => weir_drills::outage::main(&args),
        Drill::Backup(args) => weir_drills::backup::main(&args),
        Drill::Retention(args) => weir_drills::retention::main(&args),
        Drill::Conversion(args) => weir_drills::conversion::main(&args),
        Drill::MaintenanceDay(args) => weir_drills::maintenance_day::main(&args),
        Drill::Replay(args) => weir_drills::replay::main(&args),
    };
    match drilled {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("drill: what was promised did not hold");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("drill: {error:#}");
            ExitCode::FAILURE
        }
    }
}
