//! What a newcomer types first: `weir demo --once --json`, as `./dev demo` calls it, on the embedded log and on Kafka.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::support::{WEIR, kafka, repository};
use serde_json::Value;

/// A demo whose weir is up: it has the ports that it found free.
struct Demo {
    child: Child,
    output: BufReader<ChildStdout>,
    said: String,
}

impl Demo {
    fn start(flags: &[&str]) -> Demo {
        let mut command = Command::new(WEIR);
        command.current_dir(repository()).args(["demo", "--once", "--json", "--rate", "200", "--for", "10s"]);
        let mut child = command.args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut output, mut said) = (BufReader::new(child.stdout.take().unwrap()), String::new());
        while !said.contains("importing") {
            assert!(output.read_line(&mut said).unwrap() > 0, "{said}");
        }
        Demo { child, output, said }
    }

    /// Its last line, when it has ended well.
    fn end(mut self) -> Value {
        while self.output.read_line(&mut self.said).unwrap() > 0 {}
        assert!(self.child.wait().unwrap().success(), "{}", self.said);
        serde_json::from_str(self.said.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{}", self.said))
    }
}

#[test]
fn the_demo_adds_up_on_both_logs_and_its_import_is_the_same_on_both() {
    let embedded = Demo::start(&[]);
    let broker = kafka();
    let on_kafka = broker.as_ref().map(|broker| Demo::start(&["--kafka", &broker.bootstrap()]));
    let embedded = embedded.end();
    for said in on_kafka.map(Demo::end).iter().chain([&embedded]) {
        let number = |key: &str| said[key].as_u64().unwrap_or_else(|| panic!("no {key} in {said}"));
        assert_eq!(number("import_page_views") + number("generator_page_views"), number("page_views_in_clickhouse"));
        assert!(number("generated") > 1_000, "{said}");
        assert!(number("accepted") > 0 && number("visitors") > 0 && number("windows") > 0, "{said}");
        assert!(said["rejected"].is_object() && said["late"].is_u64() && said["seconds"].is_f64(), "{said}");
        let imported = (&said["imported"], &said["import_page_views"]);
        assert_eq!(imported, (&embedded["imported"], &embedded["import_page_views"]));
    }
}
