//! Weir's own program, a real Kafka, and a real ClickHouse.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use weir_sink::server::{Program, Server, ServerSpec};

use crate::{patience::wait_for, process::Process};

/// The `weir` that was built beside this program.
pub fn weir() -> anyhow::Result<PathBuf> {
    let weir = std::env::current_exe()?.with_file_name("weir");
    ensure!(weir.is_file(), "{} is not there (run it by `./dev`, which builds it)", weir.display());
    Ok(weir)
}

/// The repository: `tools/kafka-broker` is below it.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A broker that can be killed and started again on the same folder and port.
pub struct Broker {
    process: Option<Process>,
    dir: PathBuf,
    port: u16,
}

impl Broker {
    /// The one of `tools/kafka-broker`, which `./dev` has fetched.
    pub fn start(dir: &Path) -> anyhow::Result<Broker> {
        let mut broker = Broker { process: None, dir: dir.to_owned(), port: free_port()? };
        broker.start_again()?;
        Ok(broker)
    }

    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(repository().join("tools/kafka-broker"));
        command.arg(self.dir.join("kafka")).arg(self.port.to_string());
        let said = self.dir.join("broker.log");
        let process = self.process.insert(Process::spawn("the broker", &mut command, &said)?);
        let port = self.port;
        wait_for("the broker", || {
            process.lives()?;
            Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
        })
    }

    /// Ends it as its operator would, and starts another one on the same folder and port.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Ends it as its operator would.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.end())
    }

    /// The folder of its partitions.
    pub fn data(&self) -> PathBuf {
        self.dir.join("kafka/data")
    }

    /// `None` while it is away.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid() as u32)
    }

    /// SIGKILL: nobody answers on its port any more.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// An embedded ClickHouse, started again when it dies; `port` 0: any that is free. Its copies are in a folder beside `dir`.
pub async fn clickhouse(dir: &Path, port: u16) -> anyhow::Result<Server> {
    let lib = std::env::var_os("WEIR_CHDB_LIB").context("WEIR_CHDB_LIB is not set (run it by `./dev`)")?;
    let spec = ServerSpec {
        program: Program::Embedded { lib: PathBuf::from(lib) },
        child_command: vec![weir()?.into(), "clickhouse".into()],
        dir: std::path::absolute(dir)?,
        backups: std::path::absolute(dir.with_extension("copies"))?,
        listen_host: "127.0.0.1".to_owned(),
        http_port: port,
        database: "weir".to_owned(),
        analyst_password: String::new(),
        memory_bytes: weir_sink::server::memory_default_bytes(),
    };
    Ok(Server::start(spec).await?)
}

/// Fails before minutes of work when a part is missing.
pub fn check() -> anyhow::Result<()> {
    weir()?;
    let lib = std::env::var_os("WEIR_CHDB_LIB").map(PathBuf::from);
    ensure!(
        lib.is_some_and(|lib| lib.is_file()),
        "WEIR_CHDB_LIB names no library (run it by `./dev`, which fetches it)"
    );
    let kafka = std::env::var_os("WEIR_KAFKA_LIB").map_or_else(|| repository().join(".weir/kafka/lib"), PathBuf::from);
    ensure!(kafka.is_dir(), "Kafka is not in {} (run it by `./dev`, which fetches it)", kafka.display());
    Ok(())
}

/// How long something that answers may take.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(10);
