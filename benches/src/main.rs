//! How fast Weir is: each bench beside its reference in the same run, on real Kafka and real ClickHouse.
//!
//! ```text
//!  weir-bench pipeline ── makes traffic ──▶ Kafka ──▶ stages, each a process of its own: CPU and memory are its alone
//!  weir-bench widths   ── makes traffic ──▶ embedded log ──▶ rows per event, by width and span
//! ```
//!
//! `./dev bench NAME` builds and runs them. Figures are per CPU-second of the processes measured; the machine may be
//! shared, so what is compared is ratios within one run. The last line with `--json` is one JSON object.

mod args;
mod load;
mod pipeline;
mod plain;
mod report;
mod stage;
mod traffic;
mod usage;
mod widths;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "weir-bench", about = "How fast Weir is, beside a reference in the same run")]
enum Bench {
    /// From Kafka into ClickHouse, stage by stage, beside a plain loop over JSON records
    Pipeline(pipeline::Args),
    /// Rows per event, by the window's width and the traffic's span
    Widths(widths::Args),
    /// One stage; started by `pipeline`
    #[command(hide = true)]
    Stage { order: String },
}

fn main() -> anyhow::Result<ExitCode> {
    match Bench::parse() {
        Bench::Pipeline(args) => pipeline::main(&args),
        Bench::Widths(args) => widths::main(&args),
        Bench::Stage { order } => stage::main(&order),
    }
}
