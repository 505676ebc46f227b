//! `weir maintenance`: what is announced ahead, so that nobody need ask.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context;
use reqwest::Method;
use weir_console::{Announcement, MaintenanceState, Reply};
use weir_log::{Clock, ControlLog, SystemClock};
use weir_schemas::World;

use crate::{
    config::Config,
    judge::at,
    verbs::{Console, user},
};

#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// Announces one: it is on the page and in the feed until it is over
    Plan {
        /// When it begins: `14:00` (the next such time, UTC), or `2026-03-01T14:00:00Z`
        #[arg(long, value_name = "TIME")]
        at: String,
        /// How long it takes, as in `2h`
        #[arg(long, value_name = "SPAN")]
        r#for: String,
        #[command(flatten)]
        how: How,
    },
    /// Withdraws one that was announced
    Cancel {
        /// As `weir maintenance list` names it
        id: i64,
        #[command(flatten)]
        how: How,
    },
    /// All that there were, and are to be
    List,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct How {
    /// Why: everybody can read it
    #[arg(long, required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Says what would be announced, or withdrawn
    #[arg(long)]
    dry_run: bool,
    /// The console, `http://HOST:PORT`; without it the one at listen.console
    #[arg(long, value_name = "URL")]
    console: Option<String>,
    /// A file with the token; without it WEIR_TOKEN, or the one that `weir serve` has made in data_dir
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

pub(crate) async fn main(config: &Config, command: &MaintenanceCommand) -> anyhow::Result<ExitCode> {
    let (path, how, announcement) = match command.clone() {
        MaintenanceCommand::Plan { at, r#for, how } => {
            ("/api/maintenances".to_owned(), how, Announcement { at, r#for, ..Announcement::default() })
        }
        MaintenanceCommand::Cancel { id, how } => {
            (format!("/api/maintenances/{id}/cancel"), how, Announcement::default())
        }
        MaintenanceCommand::List => return list(config),
    };
    let console = Console::of(config, how.console.as_deref(), how.token_file.as_deref())?;
    let (id, reason, dry_run) = (Some(console.id().await?), how.reason.unwrap_or_default(), how.dry_run);
    let announcement = Announcement { id, user: user(), reason, dry_run, ..announcement };
    let reply: Reply = console.ask(Method::POST, &path, Some(&announcement)).await?;
    println!("{}{}", if dry_run { "would be so: " } else { "" }, reply.said.join("\n"));
    Ok(ExitCode::SUCCESS)
}

fn list(config: &Config) -> anyhow::Result<ExitCode> {
    let log = weir_log::open_existing(&config.log_config(), Arc::new(SystemClock));
    let control = ControlLog::look(log.context("the log cannot be opened")?)?;
    let records = match control {
        Some(control) => control.read_all()?.records.into_iter().map(|(_, record)| record).collect::<Vec<_>>(),
        None => Vec::new(),
    };
    let all = weir_console::maintenances(&World::of(&records).control, SystemClock.now_ms());
    if all.is_empty() {
        println!("there was none, and none is announced (`weir maintenance plan` announces one)");
    }
    for maintenance in all {
        let state = match maintenance.state {
            MaintenanceState::Planned => "planned",
            MaintenanceState::UnderWay => "under way",
            MaintenanceState::CatchingUp => "catching up",
            MaintenanceState::Over => "over",
            MaintenanceState::Withdrawn => "withdrawn",
        };
        let ends = maintenance.ends_ms.map_or(String::new(), |ends_ms| format!(" to {}", at(ends_ms)));
        let begins = at(maintenance.begins_ms);
        println!("{}  {state:<11}  {begins}{ends}  {}  {}", maintenance.id, maintenance.who, maintenance.reason);
    }
    Ok(ExitCode::SUCCESS)
}
