//! Settings: flags, then the environment, then a TOML file, then defaults.

use anyhow::Context;
use clap::{Args, ValueEnum};
use proto::model::Numerics;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The model that runs when none is named.
pub const STARTER: &str = "smollm2-135m-instruct";
/// Where the HTTP face listens unless told otherwise.
pub const API_ADDR: &str = "127.0.0.1:7717";
/// How many requests are computed at once unless told otherwise; further ones wait.
pub const SESSIONS: u32 = 4;
/// The file of settings inside the data directory.
pub const CONFIG_FILE: &str = "config.toml";

/// The settings of `myzel up`, each of which flag, environment and file may leave open.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where the OpenAI-compatible endpoint listens [default: 127.0.0.1:7717; port 0 takes a free one]
    #[arg(long, env = "MYZEL_API", value_name = "IP:PORT")]
    pub api: Option<SocketAddr>,
    /// Host names, besides those of loopback, under which the endpoint may be called
    #[arg(
        long,
        env = "MYZEL_ALLOW_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub allow_host: Vec<String>,
    /// The UDP address for other nodes [default: every address, a free port]
    #[arg(long, env = "MYZEL_LISTEN", value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// What other members see as this node's name [default: the machine's host name]
    #[arg(long, env = "MYZEL_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// The model: a name of the catalogue, hf:owner/repo/file.gguf, or a path [default: smollm2-135m-instruct]
    #[arg(long, env = "MYZEL_MODEL", value_name = "MODEL")]
    pub model: Option<String>,
    /// Spread the layers between the first and the last over N other nodes
    #[arg(long, env = "MYZEL_SPLIT", value_name = "N")]
    pub split: Option<u32>,
    /// What is promised about bits [default: exact with --split, else throughput]
    #[arg(long, env = "MYZEL_NUMERICS", value_name = "MODE")]
    pub numerics: Option<NumericsChoice>,
    /// Positions of each request's context [default: what the model was trained for, at most 4096]
    #[arg(long, env = "MYZEL_CONTEXT", value_name = "POSITIONS")]
    pub context: Option<u32>,
    /// Requests computed at once; further ones wait [default: 4]
    #[arg(long, env = "MYZEL_SESSIONS", value_name = "N")]
    pub sessions: Option<u32>,
    /// Threads to compute with [default: as many as cores are free at the moment]
    #[arg(long, env = "MYZEL_THREADS", value_name = "N")]
    pub threads: Option<u32>,
    /// Serve stages of other nodes' rings even where this system cannot lock up the engine fully
    #[arg(
        long,
        env = "MYZEL_ALLOW_UNSANDBOXED",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub allow_unsandboxed: Option<bool>,
}

/// A numerics mode on the command line and in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumericsChoice {
    /// A row's bits depend only on model, build, CPU class and the tokens before it.
    Exact,
    /// Flash attention; bits may depend on batch shape and threads.
    Throughput,
}

impl From<NumericsChoice> for Numerics {
    fn from(choice: NumericsChoice) -> Self {
        match choice {
            NumericsChoice::Exact => Self::Exact,
            NumericsChoice::Throughput => Self::Throughput,
        }
    }
}

impl Settings {
    /// These settings, with what they leave open taken from the file at `path` or, without one, from
    /// [`CONFIG_FILE`] in the data directory if it is there.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or has an unknown key or a wrong value.
    pub fn with_file(self, path: Option<&Path>, data_dir: &Path) -> anyhow::Result<Self> {
        let default = data_dir.join(CONFIG_FILE);
        let path = match path {
            Some(path) => path,
            None if default.exists() => &default,
            None => return Ok(self),
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the settings in {}", path.display()))?;
        let file: Self = toml::from_str(&text)
            .with_context(|| format!("the settings in {} are wrong", path.display()))?;
        Ok(self.or(file))
    }

    fn or(self, other: Self) -> Self {
        let allow_host = if self.allow_host.is_empty() {
            other.allow_host
        } else {
            self.allow_host
        };
        Self {
            api: self.api.or(other.api),
            allow_host,
            listen: self.listen.or(other.listen),
            name: self.name.or(other.name),
            model: self.model.or(other.model),
            split: self.split.or(other.split),
            numerics: self.numerics.or(other.numerics),
            context: self.context.or(other.context),
            sessions: self.sessions.or(other.sessions),
            threads: self.threads.or(other.threads),
            allow_unsandboxed: self.allow_unsandboxed.or(other.allow_unsandboxed),
        }
    }

    /// The numerics mode that follows from these settings.
    #[must_use]
    pub fn numerics(&self) -> Numerics {
        match (self.numerics, self.split) {
            (Some(choice), _) => choice.into(),
            (None, Some(_)) => Numerics::Exact,
            (None, None) => Numerics::Throughput,
        }
    }
}

/// The user's own data directory, where models are shared between all nodes of the user.
///
/// # Errors
///
/// When neither `XDG_DATA_HOME` nor `HOME` says where it is.
pub fn user_data_dir() -> anyhow::Result<PathBuf> {
    let of = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let base = of("XDG_DATA_HOME").or_else(|| of("HOME").map(|home| home.join(".local/share")));
    Ok(base
        .context("neither XDG_DATA_HOME nor HOME is set; name a directory with --data-dir")?
        .join("myzel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG_FILE), "split = 2\nsessions = 9\n").unwrap();
        let flags = Settings {
            split: Some(1),
            ..Settings::default()
        };
        let merged = flags.with_file(None, dir.path()).unwrap();
        assert_eq!(
            (merged.split, merged.sessions, merged.threads),
            (Some(1), Some(9), None)
        );
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        std::fs::write(&path, "splitt = 2\n").unwrap();
        let error = Settings::default()
            .with_file(Some(&path), dir.path())
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("splitt") && text.contains("mine.toml"),
            "{text}"
        );
    }

    #[test]
    fn a_named_file_must_exist_and_the_default_one_need_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Settings::default().with_file(None, dir.path()).is_ok());
        assert!(
            Settings::default()
                .with_file(Some(&dir.path().join("no")), dir.path())
                .is_err()
        );
    }

    #[test]
    fn a_split_means_exact_unless_said_otherwise() {
        let split = Settings {
            split: Some(1),
            ..Settings::default()
        };
        assert_eq!(split.numerics(), Numerics::Exact);
        assert_eq!(Settings::default().numerics(), Numerics::Throughput);
        let both = Settings {
            numerics: Some(NumericsChoice::Throughput),
            ..split
        };
        assert_eq!(both.numerics(), Numerics::Throughput);
    }
}
