//! The `weir` command: everything on one machine with `weir serve`, or its parts apart.

mod backup;
mod begin;
mod carried;
mod config;
mod control;
mod demo;
mod digest;
mod doctor;
mod exposition;
mod fault;
mod gaps;
mod generation;
mod give_way;
mod history;
mod hold;
mod judge;
mod maintenance;
mod migrate;
mod recompute;
mod recover;
mod replay;
mod report;
mod run;
mod runs;
mod screen;
mod serve;
mod sources;
mod status;
mod supervisor;
mod tables;
mod token;
mod undo;
mod verbs;

use std::{ffi::OsString, io::IsTerminal as _, process::ExitCode};

use clap::{Parser, Subcommand};
use config::ConfigArgs;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Counts web traffic for many sites: collectors, a log, statistics per window, ClickHouse.
#[derive(Debug, Parser)]
#[command(name = "weir", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything on one machine: collector, runs, console, and a ClickHouse of its own unless one is configured
    Serve,
    /// The collector alone
    Ingest,
    /// The runs alone, and their ClickHouse
    Pipeline,
    /// Status and metrics alone
    Console,
    /// How complete the numbers are, and what holds them back
    Status(status::StatusArgs),
    /// Rows and digest of a table, to compare it with another one
    Digest(digest::DigestArgs),
    /// Stops a run at its next batch boundary, while hits are collected on
    Pause(verbs::PauseArgs),
    /// Lets a run go on that was paused
    Resume(verbs::ResumeArgs),
    /// Lets a run work for a share of the time only
    Throttle(verbs::ThrottleArgs),
    /// Who ordered what, when and why
    Log(history::LogArgs),
    /// Makes a token for operators, and says what the console's configuration needs for it
    Token(token::TokenArgs),
    /// Lets a run go on that has stopped, after what its status says was seen to
    Recover(recover::RecoverArgs),
    /// Computes windows again beside the table, says what differs, and replaces whole finished days when asked to
    Replay(replay::ReplayArgs),
    /// Copies of the statistics: made, proved and brought back while everything goes on
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Converts the statistics to another schema version, beside everything else
    #[command(subcommand)]
    Migrate(migrate::MigrateCommand),
    /// Announces maintenances, and lists them
    #[command(subcommand)]
    Maintenance(maintenance::MaintenanceCommand),
    /// Reads access logs into statistics of their own
    Import(weir_import::ImportCommand),
    /// Sends believable traffic
    Generate(weir_generate::GenerateArgs),
    /// What is in force, and where each value came from
    Config,
    /// Looks at log, topics, ClickHouse, disk and clocks, and says what to do
    Doctor(doctor::DoctorArgs),
    /// The main job on sample data: what `./dev demo` calls
    Demo(demo::DemoArgs),
    /// One run, as the supervisor starts it
    #[command(hide = true)]
    Run,
    /// The embedded ClickHouse, as the supervisor starts it
    #[command(hide = true, disable_help_flag = true)]
    Clickhouse {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A worker that panics would leave the others of its process waiting for ever: the process ends, and is restarted.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str().is_some_and(is_reader_gone) {
            end_unread();
        }
        report(panic);
        std::process::abort();
    }));
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What `println!` panics with where whoever read has gone away, as in `weir log | head -1`: the standard library's own text. The
/// signal that ends others then stays ignored, for a run outlives the one that hears its metrics.
fn is_reader_gone(panic: &str) -> bool {
    panic.starts_with("failed printing to std") && panic.contains(": Broken pipe")
}

/// Ends the process as a shell sees others end then, by SIGPIPE. Nothing is cleaned up that other threads may still use.
pub(crate) fn end_unread() -> ! {
    // SAFETY: it ends the process, and runs nothing.
    unsafe { libc::_exit(128 + libc::SIGPIPE) }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Clickhouse { words } => {
            let [kind, path, dir, backups] = words.as_slice() else {
                anyhow::bail!("`weir clickhouse` is started by weir")
            };
            weir_sink::server::child_main(kind, path.as_ref(), dir.as_ref(), backups.as_ref())
        }
        Command::Run => return run::main(),
        _ => {}
    }
    start_tracing();
    let loaded = cli.config.load()?;
    let config = &loaded.config;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match cli.command {
        Command::Serve => runtime.block_on(serve::serve(config, serve::Parts::ALL))?,
        Command::Ingest => runtime.block_on(serve::serve(config, serve::Parts::INGEST))?,
        Command::Pipeline => runtime.block_on(serve::serve(config, serve::Parts::PIPELINE))?,
        Command::Console => runtime.block_on(serve::serve(config, serve::Parts::CONSOLE))?,
        Command::Status(args) if args.watch => runtime.block_on(status::watch(config))?,
        Command::Status(args) => return runtime.block_on(status::main(config, &args)),
        Command::Digest(args) => return runtime.block_on(digest::main(config, &args)),
        Command::Pause(args) => return runtime.block_on(verbs::pause(config, &args)),
        Command::Resume(args) => return runtime.block_on(verbs::resume(config, &args)),
        Command::Throttle(args) => return runtime.block_on(verbs::throttle(config, &args)),
        Command::Log(args) => return history::main(config, &args),
        Command::Token(args) => return token::main(&args),
        Command::Recover(args) => return runtime.block_on(recover::main(config, &args)),
        Command::Replay(args) => return runtime.block_on(replay::main(config, &args)),
        Command::Backup(command) => return runtime.block_on(backup::main(config, &command)),
        Command::Migrate(command) => return runtime.block_on(migrate::main(config, &command)),
        Command::Maintenance(command) => return runtime.block_on(maintenance::main(config, &command)),
        Command::Import(command) => return runtime.block_on(sources::import(config, command)),
        Command::Generate(args) => return runtime.block_on(sources::generate(config, args)),
        Command::Config => {
            for (key, value, source) in loaded.entries() {
                println!("{key} = {value}  # {source}");
            }
        }
        Command::Doctor(args) => return runtime.block_on(doctor::main(config, &args)),
        Command::Demo(args) => return runtime.block_on(demo::main(args)),
        Command::Run | Command::Clickhouse { .. } => unreachable!("answered above"),
    }
    Ok(ExitCode::SUCCESS)
}

/// To standard error, in colours only where somebody sees them; `RUST_LOG` decides what, `info` without it. What cannot be
/// written, onto a full disk maybe, is lost: that ends nothing.
pub(crate) fn start_tracing() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    lines.log_internal_errors(false).init();
}
