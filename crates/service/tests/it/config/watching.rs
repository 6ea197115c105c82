use std::fs;
use std::sync::mpsc;

use throughline_service::config::{Config, Watched};

use super::{Bank, Place};

fn watch(place: &Place) -> Config<Bank> {
    place.builder().watch().unwrap()
}

#[tokio::test]
async fn a_file_that_is_written_in_place_is_reloaded() {
    let place = Place::with("limit = 1\n");
    let mut config = watch(&place);
    assert_eq!(config.current().limit, 1);
    let mut limits = config.map(|bank| bank.limit);
    for limit in 2..5 {
        // It may be read while it is empty. Then it is read again.
        fs::write(&place.path, format!("limit = {limit}\n")).unwrap();
        while config.reloaded().await.is_err() {}
        assert_eq!((config.current().limit, *limits.changed().await), (limit, limit));
    }
    assert_eq!(config.reload_count(), 3);
}

#[tokio::test]
async fn a_file_that_another_is_renamed_over_is_reloaded() {
    let place = Place::with("limit = 1\n");
    let mut config = watch(&place);
    for limit in 2..5 {
        place.write(format!("limit = {limit}\n"));
        assert_eq!(config.reloaded().await.unwrap().limit, limit);
    }
}

#[tokio::test]
async fn a_file_that_is_deleted_keeps_the_values_until_it_is_there_again() {
    let place = Place::with("limit = 1\n");
    let mut config = watch(&place);
    fs::remove_file(&place.path).unwrap();
    let error = config.reloaded().await.unwrap_err();
    assert_eq!(error.message(), "there is no such file");
    assert_eq!(config.current().limit, 1);

    place.write("limit = 2\n");
    assert_eq!(config.reloaded().await.unwrap().limit, 2);
    assert!(config.last_error().is_none());
}

#[tokio::test]
#[cfg(unix)]
async fn the_links_of_a_config_map_are_followed() {
    use std::os::unix::fs::symlink;

    // What the kubelet does: bank.toml -> ..data/bank.toml, ..data -> a directory of each version.
    let place = Place::empty();
    let root = place.directory.path();
    let version = |n: u64| {
        let directory = root.join(format!("..version_{n}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("bank.toml"), format!("limit = {n}\n")).unwrap();
        let link = root.join("..data_tmp");
        symlink(directory.file_name().unwrap(), &link).unwrap();
        fs::rename(link, root.join("..data")).unwrap();
    };
    version(1);
    symlink("..data/bank.toml", &place.path).unwrap();
    let mut config = watch(&place);
    for n in 2..5 {
        version(n);
        fs::remove_dir_all(root.join(format!("..version_{}", n - 1))).unwrap();
        assert_eq!(config.reloaded().await.unwrap().limit, n);
    }
    assert_eq!(config.error_count(), 0);
}

#[tokio::test]
#[cfg(unix)]
async fn the_target_of_a_link_in_another_directory_is_watched() {
    use std::os::unix::fs::symlink;

    let (place, first, second) = (Place::empty(), Place::with("limit = 1\n"), Place::with("limit = 2\n"));
    // The directory is a link, too: /srv/current -> /srv/release-1.
    let current = place.directory.path().join("current");
    symlink(first.directory.path(), &current).unwrap();
    symlink(current.join("bank.toml"), &place.path).unwrap();
    let mut config = watch(&place);
    assert_eq!(config.current().limit, 1);

    fs::remove_file(&current).unwrap();
    symlink(second.directory.path(), &current).unwrap();
    while config.reloaded().await.is_err() {}
    assert_eq!(config.current().limit, 2);
    second.write("limit = 3\n");
    assert_eq!(config.reloaded().await.unwrap().limit, 3);
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_watched_again() {
    let place = Place::empty();
    let directory = place.directory.path().join("conf");
    let path = directory.join("bank.toml");
    fs::create_dir(&directory).unwrap();
    fs::write(&path, "limit = 1\n").unwrap();
    let mut config: Config<Bank> = Config::builder().file(&path).watch().unwrap();

    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(config.reloaded().await.unwrap_err().message(), "there is no such file");
    let written = place.directory.path().join("written");
    fs::create_dir(&written).unwrap();
    fs::write(written.join("bank.toml"), "limit = 2\n").unwrap();
    fs::rename(&written, &directory).unwrap();
    assert_eq!(config.reloaded().await.unwrap().limit, 2);
    let written = directory.join("written");
    fs::write(&written, "limit = 3\n").unwrap();
    fs::rename(&written, &path).unwrap();
    assert_eq!(config.reloaded().await.unwrap().limit, 3);
}

#[tokio::test]
async fn a_bad_file_keeps_the_values_and_a_good_one_clears_the_error() {
    let place = Place::with("limit = 1\n");
    let mut config = watch(&place);
    let mut limit = config.map(|bank| bank.limit);
    let texts = ["limit = \n", "limit = 'many'\n", "currency = 'EUR'\nlimits = 2\n", "", "# nothing\nlimit = 1\n\nx"];
    for (bad, line) in texts.into_iter().zip([Some(1), Some(1), Some(2), None, Some(4)]) {
        place.write(bad);
        let error = config.reloaded().await.unwrap_err();
        assert_eq!(error.line(), line, "{error}");
        assert_eq!(error.file(), Some(place.path.as_path()));
        assert_eq!(config.current().limit, 1);
        assert_eq!(config.last_error().unwrap().to_string(), error.to_string());
    }
    assert_eq!((config.reload_count(), config.error_count()), (0, 5));

    place.write("limit = 2\n");
    assert_eq!(*limit.changed().await, 2);
    assert!(config.last_error().is_none());
    assert_eq!((config.reload_count(), config.error_count()), (1, 5));
}

#[tokio::test]
async fn a_file_that_is_written_again_unchanged_is_not_reloaded() {
    let place = Place::with("limit = 'x'\n");
    let mut config: Config<Bank> = Config::builder()
        .optional_file(&place.path)
        .environment("BANK")
        .variables([("BANK__LIMIT", "1")])
        .watch()
        .unwrap();
    let before = config.current();
    place.write("limit = 'x'\n");
    fs::write(place.directory.path().join("another"), "x").unwrap();
    // The next attempt is that of the next text: the writes before it were none.
    place.write("limit = 'y'\n");
    let after = config.reloaded().await.unwrap();
    assert_eq!((after.limit, config.reload_count(), config.error_count()), (1, 1, 0));
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_value_that_the_validation_refuses_keeps_the_old_one() {
    let place = Place::with("limit = 1\n");
    let positive = |bank: &Bank| if bank.limit > 0 { Ok(()) } else { Err("limit: it must be positive".to_owned()) };
    let mut config = place.builder().validate(positive).watch().unwrap();
    place.write("limit = 0\n");
    let error = config.reloaded().await.unwrap_err();
    assert_eq!(error.message(), "limit: it must be positive");
    assert_eq!(config.current().limit, 1);
    place.write("limit = 3\n");
    assert_eq!(config.reloaded().await.unwrap().limit, 3);
}

#[tokio::test]
async fn a_validation_that_panics_keeps_the_old_value_and_the_thread() {
    let place = Place::with("limit = 1\n");
    let mut config = place
        .builder()
        .validate(|bank| {
            assert!(bank.limit > 0);
            Ok(())
        })
        .watch()
        .unwrap();
    place.write("limit = 0\n");
    assert_eq!(config.reloaded().await.unwrap_err().message(), "reading the configuration panicked");
    place.write("limit = 3\n");
    assert_eq!(config.reloaded().await.unwrap().limit, 3);
}

#[tokio::test]
async fn an_optional_file_that_comes_later_is_used() {
    let place = Place::empty();
    let mut config: Config<Bank> = Config::builder().optional_file(&place.path).watch().unwrap();
    assert_eq!(*config.current(), Bank::default());
    fs::write(place.directory.path().join("another"), "x").unwrap();
    place.write("limit = 2\n");
    assert_eq!(config.reloaded().await.unwrap().limit, 2);
    assert_eq!(config.error_count(), 0);
}

#[tokio::test]
async fn the_environment_overrides_a_file_that_changes() {
    let place = Place::with("limit = 1\ncurrency = 'EUR'\n");
    let variables = [("BANK__LIMIT", "9")];
    let mut config = place.builder().environment("BANK").variables(variables).watch().unwrap();
    place.write("limit = 2\ncurrency = 'CHF'\n");
    let bank = config.reloaded().await.unwrap();
    assert_eq!((bank.limit, bank.currency.as_str()), (9, "CHF"));
}

#[tokio::test]
async fn a_derived_value_follows_while_the_config_is_dropped() {
    let place = Place::with("limit = 1\n");
    let mut limit: Watched<u64> = watch(&place).map(|bank| bank.limit);
    place.write("limit = 2\n");
    assert_eq!(*limit.changed().await, 2);
}

/// Sends when its thread ends.
struct OnThreadEnd(mpsc::Sender<()>);

impl Drop for OnThreadEnd {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
    }
}

thread_local! {
    static END: std::cell::RefCell<Option<OnThreadEnd>> = const { std::cell::RefCell::new(None) };
}

#[tokio::test]
async fn the_thread_ends_with_the_last_handle() {
    let place = Place::with("limit = 1\n");
    let (sender, ended) = mpsc::channel();
    let remember = move |bank: &Bank| {
        if bank.limit == 2 {
            END.set(Some(OnThreadEnd(sender.clone())));
        }
        Ok(())
    };
    let mut config = place.builder().validate(remember).watch().unwrap();
    let limit = config.map(|bank| bank.limit);
    place.write("limit = 2\n");
    config.reloaded().await.unwrap();
    drop(config);
    // The thread still runs.
    place.write("limit = 3\n");
    let mut still = limit.clone();
    while *still.changed().await != 3 {}
    assert!(ended.try_recv().is_err());
    drop((limit, still));
    ended.recv().unwrap();
}
