//! Metrics of the runs: each is a process of its own, which tells its metrics to the one that started it, and that shows
//! them with its own as one Prometheus text.
//!
//! ```text
//!  run: recorder ──text, END──▶ standard output ──▶ [`OfRuns::follow`] ──▶ [`OfRuns::with`] ──▶ /metrics
//! ```

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::ChildStdout,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusBuilder;

/// How often a run tells its metrics.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// After each telling.
const END: &str = "# END";

/// Tells this process's metrics from now on, to standard output, as long as somebody reads them.
pub(crate) fn tell() -> anyhow::Result<()> {
    let metrics = PrometheusBuilder::new().install_recorder().context("metrics cannot be set up")?;
    std::thread::spawn(move || {
        let mut out = std::io::stdout();
        loop {
            metrics.run_upkeep();
            if writeln!(out, "{}{END}", metrics.render()).and_then(|()| out.flush()).is_err() {
                return;
            }
            std::thread::sleep(TELL_EVERY);
        }
    });
    Ok(())
}

/// What the runs of this process have told last.
#[derive(Debug, Clone, Default)]
pub(crate) struct OfRuns(Arc<Mutex<BTreeMap<String, String>>>);

impl OfRuns {
    /// Hears what a run tells until it ends; then it has no metrics any more.
    pub(crate) fn follow(&self, run: &str, told: ChildStdout) {
        let (runs, run) = (self.0.clone(), run.to_owned());
        std::thread::spawn(move || {
            let mut text = String::new();
            for line in BufReader::new(told).lines().map_while(Result::ok) {
                if line == END {
                    runs.lock().expect("no holder panics").insert(run.clone(), std::mem::take(&mut text));
                } else {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
            runs.lock().expect("no holder panics").remove(&run);
        });
    }

    /// This process's own metrics, and those of its runs.
    pub(crate) fn with(&self, own: &str) -> String {
        let runs = self.0.lock().expect("no holder panics");
        join(std::iter::once(own).chain(runs.values().map(String::as_str)))
    }
}

/// All series of `texts`, each family's once after its `# HELP` and `# TYPE`, as the format wants it. Series of equal
/// names and labels must not be in two of them: those of runs carry the run's name.
fn join<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut families: BTreeMap<&str, Family<'a>> = BTreeMap::new();
    for text in texts {
        let mut family = "";
        let mut fresh = false;
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.strip_prefix("# ").map(|rest| rest.split(' ').nth(1).unwrap_or_default()) {
                Some(name) => {
                    if name != family {
                        fresh = !families.contains_key(name);
                    }
                    family = name;
                    let known = families.entry(family).or_default();
                    if fresh {
                        known.head.push(line);
                    }
                }
                None => families.entry(family).or_default().series.push(line),
            }
        }
    }
    let lines = families.into_values().flat_map(|family| family.head.into_iter().chain(family.series));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[derive(Default)]
struct Family<'a> {
    /// `# HELP …`, `# TYPE …`.
    head: Vec<&'a str>,
    series: Vec<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_of_two_processes_has_its_head_once_and_all_series() {
        let one = "# HELP a what\n# TYPE a counter\na{run=\"live\"} 1\n\n# TYPE b gauge\nb 2\n";
        let two = "# HELP a what\n# TYPE a counter\na{run=\"import\"} 5\n";
        expect_test::expect![[r#"
            # HELP a what
            # TYPE a counter
            a{run="live"} 1
            a{run="import"} 5
            # TYPE b gauge
            b 2
        "#]]
        .assert_eq(&join([one, two]));
    }
}
