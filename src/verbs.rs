//! `weir pause`, `resume`, `throttle`: an operator's word, sent to the console, and waited for until it has taken effect.
//!
//! Law: `weir pause` succeeds only when the run stands, and `weir throttle` only when it works with that share or stands, so
//! that what comes after it in a script may rely on that.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use reqwest::{Client, Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use weir_console::{Command, ConsoleClock, Ended, Reply, Verb, clocks_differ};
use weir_log::{Clock, SystemClock};
use weir_schemas::{UNHINDERED_PERMILLE, control::Action};

use crate::{config::Config, judge::at, token};

/// How long an effect is waited for; it comes in any case, when somebody runs the runs.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same of a pause and a throttle, where nobody has heard of the run.
const QUIET_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a console that does not answer, or whose log is away, is asked again.
const RETRY: Duration = Duration::from_secs(10);
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// A run that has said nothing for so long, of twice a second, is run by nobody.
const SILENT_MS: i64 = 10_000;

/// What every verb takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OrderArgs {
    /// The run, as `weir status` names it: `live`, `gap`, `import-…`
    #[arg(value_parser = parse_run)]
    run: String,
    /// Why: it is kept for ever, with who and when
    #[arg(long, required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Says what would happen
    #[arg(long)]
    dry_run: bool,
    /// The console, `http://HOST:PORT`; without it the one at listen.console
    #[arg(long, value_name = "URL")]
    console: Option<String>,
    /// A file with the token; without it WEIR_TOKEN, or the one that `weir serve` has made in data_dir
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// What can be no run's name is refused before it is a part of a URL.
fn parse_run(word: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = !word.is_empty() && word != "." && word != ".." && word.bytes().all(is_plain);
    if is_name { Ok(word.to_owned()) } else { Err("it is no run's name (`weir status` names them)".to_owned()) }
}

/// A reason as the console takes it, of what is ordered without one.
pub(crate) fn parse_reason(words: &str) -> Result<String, String> {
    weir_console::check_reason(words).map(|()| words.to_owned())
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// How long, as in `2h`; it is resumed by itself then
    #[arg(long, value_name = "SPAN", conflicts_with = "until")]
    r#for: Option<String>,
    /// Until when: `14:00` (the next such time, UTC), or `2026-03-01T14:00:00Z`
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Also if the log does not keep so long what the run needs: what it deletes is then missing in the statistics
    #[arg(long)]
    allow_loss: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// Goes on with the present at once; the run `gap` fills what lies before, beside it
    #[arg(long)]
    live_first: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ThrottleArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// The share of the time that the run works at most, above 0 and at most 1 (unhindered)
    #[arg(allow_negative_numbers = true)]
    share: f64,
}

pub(crate) async fn pause(config: &Config, args: &PauseArgs) -> anyhow::Result<ExitCode> {
    let PauseArgs { order, r#for, until, allow_loss } = args.clone();
    let command = Command { r#for, until, allow_loss, ..Command::default() };
    send(config, Verb::Pause, &order, command).await
}

pub(crate) async fn resume(config: &Config, args: &ResumeArgs) -> anyhow::Result<ExitCode> {
    let command = Command { live_first: args.live_first, ..Command::default() };
    send(config, Verb::Resume, &args.order, command).await
}

pub(crate) async fn throttle(config: &Config, args: &ThrottleArgs) -> anyhow::Result<ExitCode> {
    let command = Command { share: Some(args.share), ..Command::default() };
    send(config, Verb::Throttle, &args.order, command).await
}

async fn send(config: &Config, verb: Verb, order: &OrderArgs, command: Command) -> anyhow::Result<ExitCode> {
    let console = Console::of(config, order.console.as_deref(), order.token_file.as_deref())?;
    let command = Command {
        id: Some(console.id().await?),
        user: user(),
        reason: order.reason.clone().unwrap_or_default(),
        dry_run: order.dry_run,
        ..command
    };
    let word = match verb {
        Verb::Pause => "pause",
        Verb::Resume => "resume",
        Verb::Throttle => "throttle",
    };
    let path = format!("/api/runs/{}/{word}", order.run);
    let reply: Reply = console.ask(Method::POST, &path, Some(&command)).await?;
    println!("{}{}", if order.dry_run { "would be so: " } else { "ordered: " }, reply.said.join("\n  "));
    if order.dry_run || reply.later.is_some() || (verb == Verb::Resume && reply.stopped.is_some()) {
        return Ok(ExitCode::SUCCESS);
    }
    let silent = reply.heard_ms.is_none_or(|heard_ms| reply.at_ms - heard_ms > SILENT_MS);
    // A run that has stopped, or waits for its turn, says nothing; who runs it does, soon.
    let is_quiet = verb != Verb::Resume && silent;
    let patience = if is_quiet { QUIET_PATIENCE } else { patience(config, &reply.action) };
    let begin = Instant::now();
    while begin.elapsed() < patience {
        // The same command again is answered as the first time, and with what came of it.
        let reply: Reply = console.ask(Method::POST, &path, Some(&command)).await?;
        if let Some(ended) = &reply.ended {
            bail!("{}", contrary(verb, &order.run, ended));
        }
        if let Some(through_ms) = reply.through_ms {
            println!(
                "{}",
                match verb {
                    Verb::Pause => format!("paused: complete through {}", at(through_ms)),
                    Verb::Resume | Verb::Throttle => format!("resumed: goes on from {}", at(through_ms)),
                }
            );
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(permille) = reply.works_permille {
            println!("throttled: {}", works(&order.run, permille, &reply.action));
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(later) = reply.later {
            println!("{later}");
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(why) = reply.stopped.filter(|_| verb == Verb::Resume) {
            bail!("{}", stopped(&order.run, &why));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let run = &order.run;
    println!(
        "{}",
        match (is_quiet, verb) {
            (true, Verb::Throttle) => format!(
                "nobody runs {run} now: it works with that share when `weir serve` or `weir pipeline` runs it (see `weir \
                 status`)"
            ),
            (true, _) => format!(
                "nobody runs {run} now, and nobody has said that it stands: it stays paused when `weir serve` or `weir \
                 pipeline` is started"
            ),
            (false, _) => format!(
                "it has not taken effect within {} s: it does when `weir serve` or `weir pipeline` runs {run} and its log \
                 and ClickHouse answer (see `weir status`)",
                patience.as_secs()
            ),
        }
    );
    Ok(ExitCode::FAILURE)
}

/// How long it is waited for. A live that has left something goes on when its first window is in the table.
fn patience(config: &Config, ordered: &Action) -> Duration {
    match ordered {
        Action::Resume { left_to_ms: Some(_), .. } => {
            let (window_ms, lateness_ms) = config.window_and_lateness_ms();
            PATIENCE + Duration::from_millis((window_ms + lateness_ms) as u64)
        }
        _ => PATIENCE,
    }
}

/// With which share a throttled run works: a gap's may be giving way.
fn works(run: &str, permille: u16, action: &Action) -> String {
    let percent = f64::from(permille) / 10.0;
    match action {
        Action::Throttle { permille: ordered, .. } if permille < *ordered => {
            format!("{run} works at most {percent} % of the time for now, giving way to live, which is late")
        }
        _ if permille == UNHINDERED_PERMILLE => format!("{run} works unhindered"),
        _ => format!("{run} works at most {percent} % of the time"),
    }
}

/// That somebody has ordered the contrary meanwhile.
fn contrary(verb: Verb, run: &str, Ended { at_ms, who, reason }: &Ended) -> String {
    let what = match verb {
        Verb::Pause => "the pause was ended",
        Verb::Resume => "it was paused again",
        Verb::Throttle => "another share was given",
    };
    format!("{run}: {what} at {} by {who}, \"{reason}\" (see `weir log`)", at(*at_ms))
}

/// What is to be done about it, if the reason does not say so.
fn stopped(run: &str, why: &str) -> String {
    let way_out = format!("weir recover {run}");
    let then = if why.contains(&way_out) { String::new() } else { format!(" (`{way_out}` lets it go on)") };
    format!("{run} is not paused any more, and has stopped: {why}{then}")
}

/// Who sits before the terminal.
pub(crate) fn user() -> String {
    std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default()
}

/// Where a console says what time it is.
const CLOCK: &str = "/api/clock";

/// The console, and who asks it.
pub(crate) struct Console {
    url: String,
    secret: String,
    client: Client,
}

impl Console {
    /// At `url`, or where the configuration says that it listens; with the token of the file, or the one at hand.
    pub(crate) fn of(config: &Config, url: Option<&str>, token_file: Option<&Path>) -> anyhow::Result<Console> {
        let mut listens = config.listen.console;
        if listens.ip().is_unspecified() {
            listens.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let url = url.map_or_else(|| format!("http://{listens}"), str::to_owned);
        let secret = token::secret(config, token_file)?;
        let client = Client::builder().timeout(ANSWER_WAIT).build()?;
        Ok(Console { url: url.trim_end_matches('/').to_owned(), secret, client })
    }

    /// An id for a command, by the console's clock; says so when ours is another one.
    pub(crate) async fn id(&self) -> anyhow::Result<i64> {
        let asked_ms = SystemClock.now_ms();
        let clock: ConsoleClock = self.ask(Method::GET, CLOCK, None::<&()>).await?;
        if let Some(differ) = clocks_differ(asked_ms, clock.at_ms, SystemClock.now_ms()) {
            eprintln!("weir: {differ}");
        }
        Ok(clock.at_ms)
    }

    /// Asks until there is an answer: what was asked before counts once.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        command: Option<&impl Serialize>,
    ) -> anyhow::Result<T> {
        let begin = Instant::now();
        loop {
            let mut request =
                self.client.request(method.clone(), format!("{}{path}", self.url)).bearer_auth(&self.secret);
            if let Some(command) = command {
                request = request.json(command);
            }
            let failed = match request.send().await {
                Ok(answer) => {
                    let (status, text) = (answer.status(), answer.text().await?);
                    if status.is_success() {
                        return serde_json::from_str(&text).with_context(|| {
                            format!("{} answered something else than a weir of this version: {text}", self.url)
                        });
                    }
                    let read: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
                    // Every console has a clock.
                    let is_console = status != StatusCode::NOT_FOUND || path != CLOCK;
                    let said = read["error"].as_str().filter(|_| is_console).map_or_else(
                        || {
                            format!(
                                "{} answered {status}: that is no console of weir's (--console says where it is)",
                                self.url
                            )
                        },
                        str::to_owned,
                    );
                    if status != StatusCode::SERVICE_UNAVAILABLE {
                        bail!("{said}");
                    }
                    said
                }
                Err(error) => format!(
                    "the console at {} does not answer: {error} (is `weir serve` running? --console says where it is)",
                    self.url
                ),
            };
            if begin.elapsed() > RETRY {
                bail!("{failed}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its first window is over a window and the lateness after the resume, and only then does it say that it goes on.
    #[test]
    fn a_resume_that_leaves_something_is_waited_for_until_its_first_window_may_be_there() {
        let config = Config::default();
        // A minute is the window of version 1, and ten seconds its lateness.
        let due = Duration::from_secs(70);
        assert!(due > PATIENCE, "else nothing would have to be added: {due:?}");
        let resume = |left_to_ms| Action::Resume { run: "live".into(), id: 1, left_to_ms };
        assert_eq!(patience(&config, &resume(Some(60_000))), PATIENCE + due);
        assert_eq!(patience(&config, &resume(None)), PATIENCE);
    }
}
