//! What the rules make of user agents: one a line on stdin, each with how often it stands there, largest first.
//!
//! ```text
//! awk -F'"' '{print $6}' examples/blog-access.log | cargo run --release -p weir-schemas --example classify
//! ```
//!
//! With a number (`--example classify -- 2`) another version than 1. The last line says how long the lists took to read,
//! what they hold in memory, and what one call costs.

use std::{collections::HashMap, io::BufRead, time::Instant};

use weir_schemas::rules::Rules;

fn main() {
    let version = std::env::args().nth(1).map_or(1, |number| number.parse().expect("a rules version is a number"));
    let rules = Rules::version(version).expect("this binary carries the version");
    let before = resident_kb();
    let begin = Instant::now();
    rules.agent("Mozilla/5.0");
    let (start, held) = (begin.elapsed(), resident_kb().saturating_sub(before));

    let mut counts: HashMap<String, usize> = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        *counts.entry(line.expect("stdin is UTF-8")).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (user_agent, count) in &counts {
        let agent = rules.agent(user_agent);
        let bot = if agent.bot { "bot" } else { "-" };
        println!("{count:6} {bot:3} | {} | {} | {} | {user_agent}", agent.browser, agent.os, agent.device);
    }

    const ROUNDS: u32 = 20;
    let begin = Instant::now();
    for (user_agent, _) in (0..ROUNDS).flat_map(|_| &counts) {
        std::hint::black_box(rules.agent(user_agent));
    }
    let each = begin.elapsed() / ROUNDS / u32::try_from(counts.len().max(1)).expect("fewer agents than 2^32");
    let held_at_end = resident_kb().saturating_sub(before);
    println!(
        "{} agents; lists read in {start:?}, {held} kB, {held_at_end} kB at the end; {each:?} a call",
        counts.len()
    );
}

/// Resident memory of this process; 0 where there is no `/proc`.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}
