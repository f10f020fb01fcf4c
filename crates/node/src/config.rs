//! Settings: flags, then the environment, then a TOML file, then defaults.

use anyhow::{Context, bail};
use api::Keys;
use clap::{Args, ValueEnum};
use proto::host::KvType;
use proto::model::Numerics;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

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
    /// Answer only those who show one of the keys in this file, one a line [default: everybody who can reach the address]
    #[arg(long, env = "MYZEL_KEYS", value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// Spread the model's layers over this node and N others
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
    /// How the cache of a context is kept; q8_0 takes half the memory of f16, q4_0 a quarter and answers suffer
    /// (with throughput numerics only) [default: f16]
    #[arg(long, env = "MYZEL_KV", value_name = "TYPE")]
    pub kv: Option<KvChoice>,
    /// The most memory for the caches of all requests, as 512MiB or 2GiB; fewer requests are computed at once then
    #[arg(long, env = "MYZEL_KV_MEMORY", value_name = "SIZE")]
    pub kv_memory: Option<MemorySize>,
    /// Stretch positions beyond what the model was trained for, by a factor of up to 32 (YaRN)
    #[arg(long, env = "MYZEL_ROPE_SCALE", value_name = "FACTOR")]
    pub rope_scale: Option<f32>,
    /// The most threads to compute with; within that, as many as cores are free [default: as many as there are cores]
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

/// A cache type on the command line and in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvChoice {
    /// Half precision.
    F16,
    /// 8 bits, in blocks.
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 bits, in blocks.
    #[value(name = "q4_0")]
    Q4_0,
}

impl From<KvChoice> for KvType {
    fn from(choice: KvChoice) -> Self {
        match choice {
            KvChoice::F16 => Self::F16,
            KvChoice::Q8_0 => Self::Q8_0,
            KvChoice::Q4_0 => Self::Q4_0,
        }
    }
}

/// An amount of memory in bytes; written as `512MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct MemorySize(pub u64);

/// A text that is no amount of memory.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no amount of memory; write it as 512MiB or 2GiB")]
pub struct NotAMemorySize(String);

impl FromStr for MemorySize {
    type Err = NotAMemorySize;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotAMemorySize(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let shift = match &text[digits..] {
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err(wrong()),
        };
        let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes > 0);
        bytes.map(Self).ok_or_else(wrong)
    }
}

impl TryFrom<String> for MemorySize {
    type Error = NotAMemorySize;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
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
            keys: self.keys.or(other.keys),
            split: self.split.or(other.split),
            numerics: self.numerics.or(other.numerics),
            context: self.context.or(other.context),
            sessions: self.sessions.or(other.sessions),
            kv: self.kv.or(other.kv),
            kv_memory: self.kv_memory.or(other.kv_memory),
            rope_scale: self.rope_scale.or(other.rope_scale),
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

/// The keys of a file, and with them the token of the node's owner; everybody may ask where no file is named.
pub(crate) fn keys(file: Option<&Path>, token: &str) -> anyhow::Result<Keys> {
    let Some(file) = file else {
        return Ok(Keys::default());
    };
    let named = || format!("the file of keys {}", file.display());
    let text = std::fs::read_to_string(file).with_context(named)?;
    let lines = text.lines().map(|line| line.trim().to_owned());
    let keys: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
    if keys.is_empty() {
        bail!(
            "{} has no key: write one a line, or leave --keys out",
            named()
        );
    }
    Ok(Keys::new(keys.into_iter().chain([token.to_owned()])))
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
    fn memory_is_written_with_a_unit_or_refused() {
        let check = |text: &str, bytes: Option<u64>| {
            let got: Option<MemorySize> = text.parse().ok();
            assert_eq!(got.map(|size| size.0), bytes, "{text}");
        };
        check("512MiB", Some(512 << 20));
        check("1KiB", Some(1024));
        check("3GiB", Some(3 << 30));
        for wrong in [
            "",
            "512",
            "MiB",
            "0MiB",
            "-1MiB",
            "1.5GiB",
            "5 MiB",
            "99999999999TiB",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn the_file_knows_cache_settings() {
        let dir = tempfile::tempdir().unwrap();
        let text = "kv = \"q8_0\"\nkv_memory = \"1GiB\"\nrope_scale = 2.0\n";
        std::fs::write(dir.path().join(CONFIG_FILE), text).unwrap();
        let merged = Settings::default().with_file(None, dir.path()).unwrap();
        let memory = merged.kv_memory.map(|size| size.0);
        assert_eq!(
            (merged.kv, memory, merged.rope_scale),
            (Some(KvChoice::Q8_0), Some(1 << 30), Some(2.0))
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
