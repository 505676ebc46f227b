//! A real Kafka and a real ClickHouse in a temporary folder, ended with the bench.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use weir_sink::server::{Program, Server, ServerSpec};

/// A broker; killed when dropped.
pub(crate) struct Broker {
    child: Child,
    port: u16,
}

/// Java takes some seconds on a busy machine.
const BROKER_WAIT: Duration = Duration::from_secs(60);

impl Broker {
    /// The one of `tools/kafka-broker`, which `./dev` has fetched.
    pub(crate) fn start(dir: &Path) -> anyhow::Result<Broker> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let said = std::fs::File::create(dir.join("broker.log"))?;
        let child = Command::new("tools/kafka-broker")
            .args([dir.join("kafka").as_os_str(), port.to_string().as_ref()])
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .context("tools/kafka-broker cannot be started (run `./dev bench` where weir was cloned)")?;
        let mut broker = Broker { child, port };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if broker.child.try_wait()?.is_some() || begin.elapsed() > BROKER_WAIT {
                bail!("kafka did not start: {}", std::fs::read_to_string(dir.join("broker.log"))?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(broker)
    }

    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `weir` that was built beside this bench.
pub(crate) fn weir() -> anyhow::Result<PathBuf> {
    let weir = std::env::current_exe()?.with_file_name("weir");
    anyhow::ensure!(weir.is_file(), "{} is not there (run `./dev bench`, which builds it)", weir.display());
    Ok(weir)
}

/// The library of the embedded ClickHouse that `./dev` has fetched.
fn clickhouse_lib() -> anyhow::Result<PathBuf> {
    std::env::var_os("WEIR_CHDB_LIB").map(PathBuf::from).context("WEIR_CHDB_LIB is not set (run `./dev bench`)")
}

/// Fails before minutes of work when a part is missing.
pub(crate) fn check() -> anyhow::Result<()> {
    weir().and(clickhouse_lib()).map(drop)
}

/// An embedded ClickHouse.
pub(crate) async fn clickhouse(dir: &Path) -> anyhow::Result<Server> {
    let lib = clickhouse_lib()?;
    let spec = ServerSpec {
        program: Program::Embedded { lib },
        child_command: vec![weir()?.into(), "clickhouse".into()],
        dir: dir.join("clickhouse"),
        listen_host: "127.0.0.1".to_owned(),
        http_port: 0,
        database: "weir".to_owned(),
        analyst_password: String::new(),
        memory_bytes: weir_sink::server::memory_default_bytes(),
    };
    Ok(Server::start(spec).await?)
}
