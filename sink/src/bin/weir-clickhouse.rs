//! The embedded ClickHouse's process alone, for this crate's tests; `weir clickhouse` is the same.

fn main() {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let [kind, path, dir, backups] = words.as_slice() else {
        eprintln!("usage: weir-clickhouse embedded|program PATH DIR BACKUPS (started by weir, not by people)");
        std::process::exit(2);
    };
    weir_sink::server::child_main(kind, path.as_ref(), dir.as_ref(), backups.as_ref())
}
