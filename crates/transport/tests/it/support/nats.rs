//! A real `nats-server` with JetStream for one test.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A running `nats-server` on a port of its own. Dropping it kills it and deletes its store.
pub(crate) struct NatsServer {
    program: PathBuf,
    store: PathBuf,
    /// The port, chosen by the system at the first start.
    port: u16,
    /// `None` while the server is killed.
    process: Option<Child>,
}

impl NatsServer {
    /// Starts a server, and returns when it accepts connections.
    ///
    /// The program is looked up in the variable `THROUGHLINE_NATS_SERVER`, in `PATH` and in
    /// `/usr/sbin`. If there is none, this prints which test is skipped and returns `None`. With
    /// `THROUGHLINE_NATS=required` it panics instead.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// Like [`start`](Self::start), with a configuration in the server's own format.
    pub(crate) fn start_with(configuration: &str) -> Option<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let Some(program) = program() else {
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("a test").to_owned();
            let why = "nats-server is not in THROUGHLINE_NATS_SERVER, PATH or /usr/sbin";
            assert!(std::env::var("THROUGHLINE_NATS").as_deref() != Ok("required"), "{why}");
            eprintln!("skipped: {test}: {why}");
            return None;
        };
        let name = format!("nats-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::SeqCst));
        let store = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&store).unwrap();
        fs::write(store.join("configuration"), configuration).unwrap();
        let mut server = NatsServer { program, store, port: 0, process: None };
        server.restart();
        Some(server)
    }

    /// The address for clients.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills the server (SIGKILL), and returns when it is gone. Its store stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts the server with the same port and store, and returns when it accepts connections.
    ///
    /// Kills it before if it is running.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        let mut command = Command::new(&self.program);
        command.args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd"]).arg(&self.store);
        command.arg("-c").arg(self.store.join("configuration"));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = self.process.insert(process).stderr.take().unwrap();
        let (mut log, mut read) = (BufReader::new(log).lines().map_while(Result::ok), Vec::new());
        while let Some(line) = log.next() {
            if let Some((_, address)) = line.split_once("Listening for client connections on ") {
                self.port = address.rsplit(':').next().unwrap().trim().parse().unwrap();
            }
            if line.contains("Server is ready") {
                // Read on, so that the server can write.
                std::thread::spawn(move || log.for_each(drop));
                return;
            }
            read.push(line);
        }
        panic!("nats-server did not start:\n{}", read.join("\n"));
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.store);
    }
}

fn program() -> Option<PathBuf> {
    let named = std::env::var_os("THROUGHLINE_NATS_SERVER").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let name = format!("nats-server{}", std::env::consts::EXE_SUFFIX);
    named.into_iter().chain(folders.map(|folder| folder.join(&name))).find(|program| program.is_file())
}

#[test]
fn a_server_that_is_killed_starts_again_with_the_same_port() {
    let Some(mut server) = NatsServer::start() else { return };
    let url = server.url();
    let accepts = |url: &str| std::net::TcpStream::connect(url.trim_start_matches("nats://")).is_ok();
    assert!(accepts(&url));
    server.kill();
    assert!(!accepts(&url));
    server.restart();
    assert!(accepts(&url) && server.url() == url);
}
