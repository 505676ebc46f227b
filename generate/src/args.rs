use std::{future::Future, time::Duration};

use anyhow::{Context, ensure};

use crate::{SITES_DEFAULT, Spec, Summary, over_http};

/// Flags of `weir generate`.
#[derive(Debug, Clone, clap::Args)]
pub struct GenerateArgs {
    /// Events a second
    #[arg(long, default_value_t = 100.0, value_name = "N")]
    pub rate: f64,
    /// How long
    #[arg(long = "for", default_value = "1m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub duration: Duration,
    /// How many sites; their names are those of `weir_generate::site_name`
    #[arg(long, default_value_t = SITES_DEFAULT, value_name = "K")]
    pub sites: usize,
    /// The collector, as in http://127.0.0.1:8080; without it events go straight to the log
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// The sites' write token, which a visitor's address and user agent need
    #[arg(long, env = "WEIR_WRITE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The same seed makes the same traffic; drawn if it is not given
    #[arg(long)]
    pub seed: Option<u64>,
    /// Share of events that are a bot's
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    pub bots: f64,
    /// Share of events that claim to be seconds to minutes old
    #[arg(long, default_value_t = 0.02, value_name = "SHARE")]
    pub late: f64,
    /// The last line is one JSON object
    #[arg(long)]
    pub json: bool,
}

impl GenerateArgs {
    /// What is to be generated; draws the seed if none was given. An error names the flag that is out of its range.
    pub fn spec(&self) -> anyhow::Result<Spec> {
        ensure!(self.rate > 0.0 && self.rate <= 1e7, "--rate {} is not between 0 and 10,000,000", self.rate);
        ensure!((1..=10_000).contains(&self.sites), "--sites {} is not between 1 and 10,000", self.sites);
        for (flag, share) in [("--bots", self.bots), ("--late", self.late)] {
            ensure!((0.0..=1.0).contains(&share), "{flag} {share} is not between 0 and 1");
        }
        Ok(Spec {
            rate: self.rate,
            duration: self.duration,
            sites: self.sites,
            seed: self.seed.unwrap_or_else(rand::random),
            bots: self.bots,
            late: self.late,
        })
    }

    /// Sends to the collector at `--to`, which must be given.
    pub async fn send(&self, spec: &Spec, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<Summary> {
        let url = self.to.as_deref().context("--to is missing: the collector's address")?;
        let token =
            self.token.as_deref().context("--token is missing: the sites' write token (or WEIR_WRITE_TOKEN)")?;
        over_http(spec, url, token, shutdown).await
    }

    /// Prints what came of it: a line for people, or with `--json` one object.
    pub fn print(&self, summary: &Summary) {
        if self.json {
            println!("{}", serde_json::to_string(summary).expect("a summary is JSON"));
        } else {
            println!("{summary}");
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: GenerateArgs,
    }

    fn spec(flags: &[&str]) -> anyhow::Result<Spec> {
        Cli::try_parse_from([&["generate"], flags].concat())?.args.spec()
    }

    #[test]
    fn flags_are_read_and_a_seed_is_drawn_if_none_is_given() {
        Cli::command().debug_assert();
        let asked =
            spec(&["--rate", "20", "--for", "90s", "--sites", "3", "--seed", "9", "--bots", "0.5", "--late", "0"]);
        let asked = asked.expect("right flags");
        let expected = Spec { rate: 20.0, duration: Duration::from_secs(90), sites: 3, seed: 9, bots: 0.5, late: 0.0 };
        assert_eq!((asked.events(), asked), (1_800, expected));
        let drawn = || spec(&[]).expect("defaults").seed;
        assert_ne!(drawn(), drawn());
    }

    #[test]
    fn a_value_out_of_range_is_refused_by_the_name_of_its_flag() {
        for (flag, value) in [("--rate", "0"), ("--sites", "0"), ("--bots", "1.1"), ("--late", "NaN")] {
            let error = spec(&[flag, value]).expect_err("out of range");
            assert!(error.to_string().contains(flag), "{error}");
        }
    }
}
