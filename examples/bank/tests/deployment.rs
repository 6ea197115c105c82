//! `Dockerfile` and `compose.yaml` agree with each other, the workspace and the command line.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use bank::cli::{self, Cli};
use clap::Parser;
use http::Uri;
use serde::Deserialize;

/// The keys that the file uses. Another key, or a typo, is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Compose {
    services: BTreeMap<String, Service>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    image: Option<String>,
    build: Option<Build>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    depends_on: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    context: PathBuf,
    dockerfile: PathBuf,
}

impl Service {
    /// The published ports: of the host, and of the container.
    fn ports(&self) -> impl Iterator<Item = (u16, u16)> {
        self.ports.iter().map(|port| {
            let (host, container) = port.split_once(':').unwrap();
            (host.parse().unwrap(), container.parse().unwrap())
        })
    }
}

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn compose() -> Compose {
    serde_saphyr::from_str(&std::fs::read_to_string(folder().join("compose.yaml")).unwrap()).unwrap()
}

/// The bank's service, with the paths of its build context and its Dockerfile.
fn built() -> (Service, PathBuf, PathBuf) {
    let service = compose().services.remove("bank").unwrap();
    let build = service.build.as_ref().unwrap();
    let context = folder().join(&build.context);
    let dockerfile = context.join(&build.dockerfile);
    (service, context, dockerfile)
}

/// The instructions of the bank's Dockerfile, each with its arguments.
fn instructions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(built().2).unwrap().replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap()).map(|(name, rest)| (name.into(), rest.trim().into())).collect()
}

/// The arguments of all instructions with this name.
fn all(name: &str) -> Vec<String> {
    instructions().into_iter().filter(|(instruction, _)| instruction == name).map(|(_, rest)| rest).collect()
}

/// The arguments of the only instruction with this name.
fn only(name: &str) -> String {
    let [one] = all(name).try_into().unwrap_or_else(|found| panic!("{name}: {found:?}"));
    one
}

/// The instruction's arguments in their JSON form, which runs without a shell.
fn exec(name: &str) -> Vec<String> {
    serde_json::from_str(&only(name)).unwrap()
}

/// The port on which the bank's API listens with these arguments.
fn listens(arguments: &[String]) -> u16 {
    let entrypoint = exec("ENTRYPOINT");
    let cli = Cli::try_parse_from(entrypoint.iter().chain(arguments)).unwrap();
    let Some(cli::Command::Serve { listen }) = cli.command else { panic!("{arguments:?} does not serve") };
    assert!(listen.ip().is_unspecified(), "{listen} cannot be reached from outside its container");
    listen.port()
}

/// Whether the image has a tag other than `latest`.
fn pinned(image: &str) -> bool {
    image.rsplit_once(':').is_some_and(|(name, tag)| !name.is_empty() && !tag.is_empty() && !tag.starts_with("latest"))
}

#[test]
fn each_service_has_a_pinned_image_or_a_dockerfile_that_exists() {
    for (name, service) in compose().services {
        match (service.image, service.build) {
            (Some(image), None) => assert!(pinned(&image), "{name}: {image}"),
            (None, Some(build)) => {
                let dockerfile = folder().join(build.context).join(build.dockerfile);
                assert!(dockerfile.is_file(), "{name}: {}", dockerfile.display());
            }
            (image, build) => panic!("{name}: image {image:?}, build {}", build.is_some()),
        }
    }
}

#[test]
fn services_depend_on_services_that_exist() {
    let services = compose().services;
    for (name, service) in &services {
        for other in &service.depends_on {
            assert!(other != name && services.contains_key(other), "{name} depends on {other}");
        }
    }
}

#[test]
fn each_port_of_the_host_is_published_once() {
    let mut taken = BTreeSet::new();
    for (name, service) in compose().services {
        for (host, _) in service.ports() {
            assert!(taken.insert(host), "{name}: {host} is taken");
        }
    }
}

#[test]
fn the_bank_listens_where_its_port_is_exposed_and_published() {
    let (service, ..) = built();
    let port = listens(&service.command);
    assert_eq!(service.ports().map(|(_, container)| container).collect::<Vec<_>>(), [port]);
    assert_eq!(only("EXPOSE").parse(), Ok(port));
    // Without a command, as `docker run` does.
    assert_eq!(listens(&exec("CMD")), port);
}

#[test]
fn spans_go_to_a_service_of_the_file() {
    let services = compose().services;
    let endpoint: Uri = services["bank"].environment["OTEL_EXPORTER_OTLP_ENDPOINT"].parse().unwrap();
    let collector =
        services.get(endpoint.host().unwrap()).unwrap_or_else(|| panic!("no service has the host of {endpoint}"));
    assert!(collector.ports().any(|(_, port)| Some(port) == endpoint.port_u16()), "{endpoint}");
    assert!(services["bank"].depends_on.iter().any(|name| Some(&**name) == endpoint.host()), "{endpoint}");
}

#[test]
fn the_dockerfile_has_known_instructions_pinned_images_and_no_root() {
    const KNOWN: [&str; 18] = [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    let instructions = instructions();
    for (name, rest) in &instructions {
        assert!(KNOWN.contains(&&**name), "{name} {rest}");
    }
    assert_eq!(instructions[0].0, "FROM");
    for from in all("FROM") {
        assert!(pinned(from.split(' ').next().unwrap()), "{from}");
    }
    let user = only("USER");
    assert!(!["root", "0"].contains(&user.split(':').next().unwrap()), "{user}");
    assert_eq!(only("STOPSIGNAL"), "SIGTERM");
}

#[test]
fn the_dockerfile_builds_a_package_of_the_workspace_and_runs_its_binary() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(folder())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let (_, context, _) = built();
    let root = Path::new(metadata["workspace_root"].as_str().unwrap());
    assert_eq!(context.canonicalize().unwrap(), root.canonicalize().unwrap(), "the context is not the workspace");

    let build = only("RUN");
    let words: Vec<_> = build.split_whitespace().collect();
    assert_eq!(words[..2], ["cargo", "build"]);
    assert!(words.contains(&"--release") && words.contains(&"--locked"), "{build}");
    let package = words[words.iter().position(|word| *word == "-p").unwrap() + 1];
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|known| known["name"] == package).unwrap_or_else(|| panic!("{package}"));
    let targets = package["targets"].as_array().unwrap().iter();
    let binaries: Vec<_> = targets.filter(|target| target["kind"][0] == "bin").map(|target| &target["name"]).collect();

    let stages: Vec<_> = all("FROM").iter().filter_map(|from| Some(from.split_once(" AS ")?.1.to_owned())).collect();
    let mut installed = Vec::new();
    for copy in all("COPY") {
        let words: Vec<_> = copy.split_whitespace().collect();
        match words[..] {
            [from, source, target] if from.starts_with("--from=") => {
                assert!(stages.iter().any(|stage| from == format!("--from={stage}")), "{copy}");
                let binary =
                    Path::new(source).strip_prefix(Path::new(&only("WORKDIR")).join("target/release")).unwrap();
                assert!(binaries.iter().any(|known| **known == binary.to_str().unwrap()), "{copy}");
                let target = Path::new(target).strip_prefix("/usr/local/bin").unwrap();
                installed.push(target.to_str().unwrap().to_owned());
            }
            [source, _] => assert!(context.join(source).exists(), "{copy}"),
            _ => panic!("{copy}"),
        }
    }
    assert_eq!(exec("ENTRYPOINT"), installed);
}
