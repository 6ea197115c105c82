//! What the library logs. A process of its own, because the log of a thread is the process's.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use throughline_service::config::{Config, ServiceSettings};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_bad_file_is_logged_once_with_its_line_and_column() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone());
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("balance.toml");
    let write = |text: &str| {
        let written = directory.path().join("written");
        fs::write(&written, text).unwrap();
        fs::rename(&written, &path).unwrap();
    };
    write("max_timeout = '1s'\n");
    let mut config = Config::<ServiceSettings>::builder().file(&path).watch().unwrap();
    write("max_timeout = '1s'\ndefault_timeout = 2\n");
    let error = config.reloaded().await.unwrap_err();
    // Another file in the directory makes it look again. The next result is that of the good file.
    write("max_timeout = '1s'\ndefault_timeout = 2\n");
    fs::write(directory.path().join("another"), "x").unwrap();
    write("max_timeout = '3s'\n");
    config.reloaded().await.unwrap();

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let file = path.display();
    let expected = format!(
        "ERROR throughline::config: the configuration was not reloaded, the old values hold: {error} \
         file=\"{file}\" line=2 column=19\n \
         INFO throughline::config: the configuration was reloaded\n"
    );
    assert_eq!(log, expected);
    assert!(error.to_string().starts_with(&format!("{file}:2:19: invalid type: integer `2`")), "{error}");
}
