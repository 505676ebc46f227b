//! Copies the pipeline's sources, and puts what is wrong beside what is right.

use std::{env, fs, path::Path};

/// Which bug, in which file, and what comes instead of what.
const PLANTS: [(&str, &str, &str, &str); 7] = [
    (
        "MergedWatermark",
        "source.rs",
        "let times = (!with_id(event)).then(|| Times::of(&shared.rule, batch, event, arrival_ms))?;",
        "let times = (!with_id(event)).then(|| Times::of(&shared.rule, batch, event, arrival_ms))?;
         let times = crate::times(shared, times);",
    ),
    (
        "MergedWatermark",
        "run.rs",
        "let times = first[event].then(|| Times::of(&shared.rule, &batch, event, arrival_ms))?;",
        "let times = first[event].then(|| Times::of(&shared.rule, &batch, event, arrival_ms))?;
         let times = crate::times(shared, times);",
    ),
    (
        "NoRunningMaximum",
        "partition.rs",
        "self.order.pop_front();
        }
        self.arrival_ms",
        "self.order.pop_front();
        }
        if crate::is(crate::Plant::NoRunningMaximum) {
            return stamp_ms;
        }
        self.arrival_ms",
    ),
    // What closes in a window that is closed already must leave for the bug to be seen.
    (
        "NoRunningMaximum",
        "run.rs",
        "let at = passed.capability.delayed(&shared.place_of_window(window));",
        "let place = shared.place_of_window(window).max(*passed.capability.time());
         let at = passed.capability.delayed(&place);",
    ),
    (
        "CopyMustCount",
        "partition.rs",
        "let before = self.newest.insert(name, self.arrival_ms);",
        "if crate::is(crate::Plant::CopyMustCount) && self.newest.contains_key(&name) {
            return false;
        }
        let before = self.newest.insert(name, self.arrival_ms);",
    ),
    (
        "CopyMustCount",
        "order.rs",
        "let before = self.newest.insert(key, arrival_ms);",
        "let beaten = self.newest.get(&key).is_some_and(|before| arrival_ms - before <= DEDUP_HORIZON_MS);
        if crate::is(crate::Plant::CopyMustCount) && beaten {
            return false;
        }
        let before = self.newest.insert(key, arrival_ms);",
    ),
    (
        "OrderedByInterned",
        "group.rs",
        "self.used.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| symbols.get(a.1).cmp(symbols.get(b.1))));",
        "self.used.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| symbols.get(a.1).cmp(symbols.get(b.1))));
         if crate::is(crate::Plant::OrderedByInterned) {
             self.used.sort_unstable_by_key(|used| used.1);
         }",
    ),
];

fn main() {
    // Asked when it runs: a target folder may be copied beside another checkout.
    let here = env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where");
    let sources = Path::new(&here).join("../../../pipeline/src");
    println!("cargo::rerun-if-changed={}", sources.display());
    let out = Path::new(&env::var_os("OUT_DIR").expect("cargo says where")).join("pipeline");
    fs::create_dir_all(&out).expect("a folder for the copies");
    let mut misfits = Vec::new();
    for entry in fs::read_dir(&sources).expect("the pipeline's sources are beside this package") {
        let path = entry.expect("a source file").path();
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let mut text = fs::read_to_string(&path).expect("a source file is text");
        for (bug, _, right, wrong) in PLANTS.iter().filter(|(_, file, ..)| *file == name) {
            if !text.contains(right) {
                misfits.push(*bug);
            }
            text = text.replace(right, wrong);
        }
        // Their own tests are run where they are.
        if let Some(tests) = text.find("\n#[cfg(test)]\nmod tests {") {
            text.truncate(tests);
        }
        if name == "lib.rs" {
            // It is included, and what is included has no inner docs.
            text = text.lines().filter(|line| !line.starts_with("//!")).collect::<Vec<_>>().join("\n");
        }
        fs::write(out.join(name), text).expect("the copy can be written");
    }
    let misfits = format!(
        "/// Bugs that do not fit the pipeline's sources any more.\npub const MISFITS: &[&str] = &{misfits:?};\n"
    );
    fs::write(out.join("misfits.rs"), misfits).expect("the list can be written");
}
