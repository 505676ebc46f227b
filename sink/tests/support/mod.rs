//! A real ClickHouse for tests, rows to write, and what the table then holds.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use weir_schemas::{
    Closed, Dimension, Emission, Measure, Names, RowBlock, SchemaVersion, Strings, WindowStart, WindowWidth,
};
use weir_sink::server::{Program, Server, ServerSpec};
use weir_sink::{Left, RunSpec, Target};

pub const HOUR_MS: i64 = 60 * 60 * 1000;
/// 2026-03-01 00:00 UTC, in hours since the Unix epoch.
pub const DAY_ONE: i64 = 20_513 * 24;

/// The library of the embedded ClickHouse; a test without it fails, and says how to get it.
pub fn libchdb() -> PathBuf {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../.weir/node/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so");
    let lib = std::env::var_os("WEIR_CHDB_LIB").map_or_else(|| PathBuf::from(ours), PathBuf::from);
    assert!(lib.is_file(), "{} is not there: run ./dev test, or set WEIR_CHDB_LIB to libchdb.so", lib.display());
    lib.canonicalize().expect("a real path")
}

pub fn spec(dir: &Path) -> ServerSpec {
    ServerSpec {
        program: Program::Embedded { lib: libchdb() },
        child_command: vec![env!("CARGO_BIN_EXE_weir-clickhouse").into()],
        dir: dir.to_owned(),
        backups: dir.join("backups"),
        listen_host: "127.0.0.1".to_owned(),
        http_port: 0,
        database: "weir".to_owned(),
        analyst_password: String::new(),
        memory_bytes: 1 << 30,
    }
}

/// A database of its own on one server that all tests of this file share.
pub fn database() -> Target {
    static SERVER: OnceLock<Target> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let target = SERVER.get_or_init(|| {
        let (tx, rx) = std::sync::mpsc::channel();
        // The server lives in a runtime of its own: a test's runtime ends with the test. It ends with this process.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                // Below target/, and emptied by the next run: what lives as long as the process is dropped by nobody.
                let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(concat!("clickhouse-", env!("CARGO_CRATE_NAME")));
                let _ = std::fs::remove_dir_all(&dir);
                let server = Server::start(spec(&dir)).await.expect("clickhouse starts");
                tx.send(server.target().clone()).expect("the test waits");
                std::future::pending::<()>().await;
            });
        });
        rx.recv().expect("clickhouse starts")
    });
    Target { database: format!("weir_{}", NEXT.fetch_add(1, Ordering::Relaxed)), ..target.clone() }
}

/// The answer to a query as tab-separated text, or what ClickHouse said.
pub async fn ask_as(target: &Target, user: &str, password: &str, sql: &str) -> Result<String, String> {
    let url = reqwest::Url::parse_with_params(&target.url, [("user", user), ("password", password)]).expect("a URL");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let response = client.post(url).body(sql.to_owned()).send().await.map_err(|why| why.to_string())?;
    let ok = response.status().is_success();
    let text = response.text().await.map_err(|why| why.to_string())?;
    if ok && !text.contains("DB::Exception") { Ok(text.trim_end().to_owned()) } else { Err(text) }
}

pub async fn ask(target: &Target, sql: &str) -> String {
    let sql = sql.replace("DB.", &format!("{}.", target.database));
    ask_as(target, &target.user, &target.password, &sql).await.unwrap_or_else(|why| panic!("{sql}: {why}"))
}

pub fn version() -> SchemaVersion {
    SchemaVersion {
        number: 1,
        width: WindowWidth::new(HOUR_MS).expect("divides a day"),
        lateness_ms: 0,
        dimensions: vec![Dimension::Site, Dimension::Page],
        measures: vec![Measure::PageViews, Measure::BotEvents],
        rules: 1,
        values_max: 1000,
        names: Names::default(),
    }
}

/// The window that begins `hour` hours after [`DAY_ONE`].
pub fn at(hour: i64) -> WindowStart {
    version().width.window_of((DAY_ONE + hour) * HOUR_MS)
}

/// A sequence of numbers that looks random and is the same each time (SplitMix64).
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A drawn block of `rows` rows that left in the window at `hour`; no two rows have the same key.
pub fn block(draw: &mut Draw, hour: i64, rows: u64) -> RowBlock {
    let mut strings = Strings::default();
    let sites: Vec<u32> = ["a.example", "b.example", "c'é\\.example"].iter().map(|site| strings.push(site)).collect();
    let dimensions: Vec<u32> = ["page", "prop:author"].iter().map(|name| strings.push(name)).collect();
    let mut block = RowBlock::default();
    for n in 0..rows {
        block.site.push(sites[draw.below(3) as usize]);
        block.dimension.push(dimensions[draw.below(2) as usize]);
        block.value.push(strings.push(&format!("/{n}\t\n\0ü{}", "x".repeat(draw.below(20) as usize))));
        block.window_start_ms.push(at(hour - draw.below(3) as i64).ms());
        block.counts.extend([draw.below(1 << 40), draw.below(3)]);
        let mut visitors: Vec<u64> = (0..draw.below(40)).map(|_| draw.next()).collect();
        visitors.sort_unstable();
        block.visitors.extend(visitors);
        block.visitors_end.push(block.visitors.len());
    }
    block.strings = strings;
    block
}

pub fn emission(draw: &mut Draw, hour: i64, rows: u64) -> Emission {
    Emission { window: at(hour), blocks: vec![block(draw, hour, rows), block(draw, hour, rows / 2)] }
}

pub fn window(draw: &mut Draw, hour: i64, rows: u64) -> Closed {
    let mut emission = emission(draw, hour, rows);
    // The keys of the blocks must not meet.
    let mut strings = Strings::default();
    let second = &mut emission.blocks[1];
    for value in &mut second.value {
        *value = strings.push(&format!("second{}", second.strings.get(*value)));
    }
    for (n, site) in second.site.iter_mut().enumerate() {
        *site = strings.push(second.strings.get(*site));
        second.dimension[n] = strings.push(second.strings.get(second.dimension[n]));
    }
    second.strings = strings;
    Closed::Window(emission)
}

/// Waits until `holds` does; fails after a minute.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited a minute for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A live run over the windows `[from, to)`.
pub fn live(from: WindowStart, to: WindowStart) -> RunSpec {
    let (version, origin) = (version(), String::new());
    RunSpec { run: "live".to_owned(), version, origin, first: from, from, to: Some(to), left: Left::Passed }
}
