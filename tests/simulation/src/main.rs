//! `weir-simulate`: histories drawn from a seed; what fails is shrunk, and comes with the command that repeats it.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use clap::Parser;
use weir_simulation::{Bug, Drawn, Failure, History, run, shrink};

/// How many failures are shown.
const SHOWN: usize = 3;

/// Lives through drawn histories of log, pipeline, sink and table.
#[derive(Parser)]
#[command(name = "weir-simulate")]
struct Args {
    /// How many histories.
    #[arg(long, default_value_t = 200)]
    runs: u64,
    /// What they are drawn from; drawn itself if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Only the history of this number, as a failure names it.
    #[arg(long)]
    history: Option<u64>,
    /// Of that history only these appends, like 0-4,9.
    #[arg(long, requires = "history", value_parser = parse_numbers)]
    appends: Option<Numbers>,
    /// Of that history only these faults.
    #[arg(long, requires = "history", value_parser = parse_numbers)]
    faults: Option<Numbers>,
    /// Prints every statement of that history.
    #[arg(long, requires = "history")]
    story: bool,
    /// How long each failure that is shown is made smaller, s.
    #[arg(long, default_value_t = 20)]
    shrink: u64,
    /// Plants a bug: failures are what is wanted.
    #[arg(long)]
    plant: Option<Bug>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A panic is a failure like others: it is caught, and told with the command that repeats it.
    std::panic::set_hook(Box::new(|_| ()));
    let begin = std::time::Instant::now();
    let (summary, seed) = match args.history {
        Some(number) => {
            let of = |numbers: Option<Numbers>| numbers.map(|Numbers(numbers)| numbers);
            let history = History { number, appends: of(args.appends), faults: of(args.faults), bug: args.plant };
            println!("history {number}: {}", history.describe());
            if args.story {
                print!("{}", history.story());
            }
            (one(history), number)
        }
        None => {
            let seed = args.seed.unwrap_or_else(rand::random);
            println!("{}", Drawn::of(seed, args.runs, args.plant));
            (run(seed, args.runs, args.plant, |_| false), seed)
        }
    };
    for failure in summary.failures.iter().take(SHOWN) {
        println!("failed: {}", failure.wrong);
        let smallest =
            if args.history.is_some() { failure.clone() } else { shrink(failure, Duration::from_secs(args.shrink)) };
        println!("  with {}: {}", smallest.history.describe(), smallest.wrong);
        println!("  again: {}", command(&smallest));
    }
    let (passed, failed) = (summary.passed, summary.failures.len() as u64);
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{} events counted ({} late), {} ticks, {} statements, {} processes in {seconds:.1} s",
        summary.events, summary.late, summary.ticks, summary.statements, summary.processes
    );
    let happened: Vec<String> = summary.happened.iter().map(|(what, times)| format!("{times} {what}")).collect();
    println!("{}", happened.join(", "));
    println!("{passed} passed, {failed} failed");
    if args.json {
        let json = serde_json::json!({
            "seed": seed, "runs": passed + failed, "passed": passed, "failed": failed, "seconds": seconds,
            "events": summary.events, "late": summary.late, "ticks": summary.ticks,
            "statements": summary.statements, "processes": summary.processes, "happened": summary.happened,
        });
        println!("{json}");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(history: History) -> weir_simulation::Summary {
    let wrong = history.live().0;
    let passed = u64::from(wrong.is_none());
    let failures = wrong.map(|wrong| Failure { history, wrong }).into_iter().collect();
    weir_simulation::Summary { passed, failures, ..Default::default() }
}

/// What repeats just this history.
fn command(failure: &Failure) -> String {
    let History { number, appends, faults, bug } = &failure.history;
    let mut command = format!("./dev simulate --history {number}");
    for (name, numbers) in [("appends", appends), ("faults", faults)] {
        if let Some(numbers) = numbers {
            let _ = write!(command, " --{name} {}", ranges(numbers));
        }
    }
    if let Some(bug) = bug.and_then(|bug| clap::ValueEnum::to_possible_value(&bug)) {
        let _ = write!(command, " --plant {}", bug.get_name());
    }
    command
}

#[derive(Clone)]
struct Numbers(Vec<usize>);

/// `0-4,9`; `none` for none.
fn ranges(numbers: &[usize]) -> String {
    let ranges: Vec<String> =
        numbers
            .chunk_by(|a, b| a + 1 == *b)
            .map(|range| {
                if range.len() == 1 { range[0].to_string() } else { format!("{}-{}", range[0], range[range.len() - 1]) }
            })
            .collect();
    if ranges.is_empty() { "none".to_owned() } else { ranges.join(",") }
}

fn parse_numbers(text: &str) -> Result<Numbers, String> {
    let mut numbers = Vec::new();
    for range in text.split(',').filter(|range| *range != "none") {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<usize>().map_err(|_| format!("{text} is no number (like 0-4,9)"));
        numbers.extend(number(first)?..=number(last)?);
    }
    Ok(Numbers(numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_says_of_a_history_is_what_it_reads() {
        for numbers in [vec![], vec![3], vec![0, 1, 2, 7, 9, 10]] {
            assert_eq!(parse_numbers(&ranges(&numbers)).expect("its own words").0, numbers);
        }
    }
}
