//! Settings: flags, then the environment, then a TOML file, then defaults.

use anyhow::{Context, bail};
use api::Keys;
use clap::{Args, ValueEnum};
use net::{DhtConfig, RelayOffer, WaysConfig};
use proto::ad::Room;
use proto::host::KvType;
use proto::ids::NodeId;
use proto::model::Numerics;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use swarm::plan::Goal;

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
    /// Tokens that a lone request guesses at once, where that pays; the answer is the same without. 0 guesses none [default: 8]
    #[arg(long, env = "MYZEL_GUESSES", value_name = "N")]
    pub guesses: Option<u32>,
    /// The most memory for this node's own model and for stages of others together, as 2GiB; a model that needs more is
    /// shared with other nodes [default: three quarters of what is free at the start]
    #[arg(long, env = "MYZEL_MEMORY", value_name = "SIZE")]
    pub memory: Option<MemorySize>,
    /// The most bytes a second for handing models on to other members, as 10MiB [default: no limit]
    #[arg(long, env = "MYZEL_UPLOAD", value_name = "SIZE")]
    pub upload: Option<MemorySize>,
    /// What is planned for: the next token of one request soon, or many tokens of many requests [default: latency]
    #[arg(long, env = "MYZEL_GOAL", value_name = "GOAL")]
    pub goal: Option<GoalChoice>,
    /// Who may see the requests made at this node, at most; a request can ask for less [default: square]
    #[arg(long, env = "MYZEL_ROOM", value_name = "ROOM")]
    pub room: Option<RoomChoice>,
    /// For whom this node computes; alone is for nobody else [default: square]
    #[arg(long, env = "MYZEL_SERVE", value_name = "ROOM")]
    pub serve: Option<RoomChoice>,
    /// The nodes of your circle, by their keys (64 digits, see: myzel status --json)
    #[arg(long, env = "MYZEL_CIRCLE", value_name = "KEY", value_delimiter = ',')]
    pub circle: Vec<NodeId>,
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
    /// Keep streamed answers on disk while they are under way, sealed, so that clients can resume them when they or this node have been
    /// away; --journal=false keeps nothing [default: true]
    #[arg(
        long,
        env = "MYZEL_JOURNAL",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub journal: Option<bool>,
    /// Find members on the local network, and be found there (mDNS); --lan=false switches it off [default: true]
    #[arg(
        long,
        env = "MYZEL_LAN",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub lan: Option<bool>,
    /// Find members in the BitTorrent DHT, and be found there; --dht=false switches it off [default: true]
    #[arg(
        long,
        env = "MYZEL_DHT",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub dht: Option<bool>,
    /// Nodes by which a DHT of your own is entered; without them it is the public one
    #[arg(
        long,
        env = "MYZEL_DHT_BOOTSTRAP",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub dht_bootstrap: Vec<String>,
    /// Be a relay for other members, at this address of your own; or `auto`: if the machine has a public IPv4
    /// address; or `off` [default: auto]
    #[arg(long, env = "MYZEL_RELAY", value_name = "IP:PORT|auto|off")]
    pub relay: Option<RelayChoice>,
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

/// What is planned for, on the command line and in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GoalChoice {
    /// The next token of one request soon.
    Latency,
    /// Many tokens of many requests.
    Throughput,
}

impl From<GoalChoice> for Goal {
    fn from(choice: GoalChoice) -> Self {
        match choice {
            GoalChoice::Latency => Self::Latency,
            GoalChoice::Throughput => Self::Throughput,
        }
    }
}

/// A room on the command line and in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoomChoice {
    /// This machine.
    Alone,
    /// The nodes named with --circle.
    Circle,
    /// Every member of the commons.
    Square,
}

impl From<RoomChoice> for Room {
    fn from(choice: RoomChoice) -> Self {
        match choice {
            RoomChoice::Alone => Self::Alone,
            RoomChoice::Circle => Self::Circle,
            RoomChoice::Square => Self::Square,
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

/// A relay on the command line and in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RelayChoice(pub RelayOffer);

/// A text that says nothing about a relay.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is neither `auto` nor `off` nor the address of this machine and a port where others can reach a relay"
)]
pub struct NotARelay(String);

impl FromStr for RelayChoice {
    type Err = NotARelay;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotARelay(text.to_owned());
        match text {
            "auto" => Ok(Self(RelayOffer::Auto)),
            "off" => Ok(Self(RelayOffer::Off)),
            // Members are told this address, so it has to be one that they can call.
            _ => text
                .parse()
                .ok()
                .filter(|at: &SocketAddr| !at.ip().is_unspecified())
                .map(|at| Self(RelayOffer::At(at)))
                .ok_or_else(wrong),
        }
    }
}

impl TryFrom<String> for RelayChoice {
    type Error = NotARelay;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
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
        let list = |own: Vec<String>, other| if own.is_empty() { other } else { own };
        Self {
            api: self.api.or(other.api),
            allow_host: list(self.allow_host, other.allow_host),
            listen: self.listen.or(other.listen),
            name: self.name.or(other.name),
            model: self.model.or(other.model),
            keys: self.keys.or(other.keys),
            split: self.split.or(other.split),
            numerics: self.numerics.or(other.numerics),
            context: self.context.or(other.context),
            sessions: self.sessions.or(other.sessions),
            kv: self.kv.or(other.kv),
            memory: self.memory.or(other.memory),
            upload: self.upload.or(other.upload),
            goal: self.goal.or(other.goal),
            room: self.room.or(other.room),
            serve: self.serve.or(other.serve),
            circle: if self.circle.is_empty() {
                other.circle
            } else {
                self.circle
            },
            kv_memory: self.kv_memory.or(other.kv_memory),
            rope_scale: self.rope_scale.or(other.rope_scale),
            threads: self.threads.or(other.threads),
            guesses: self.guesses.or(other.guesses),
            allow_unsandboxed: self.allow_unsandboxed.or(other.allow_unsandboxed),
            journal: self.journal.or(other.journal),
            lan: self.lan.or(other.lan),
            dht: self.dht.or(other.dht),
            dht_bootstrap: list(self.dht_bootstrap, other.dht_bootstrap),
            relay: self.relay.or(other.relay),
        }
    }

    /// The ways to other members that are open: all, unless these settings close one.
    #[must_use]
    pub fn ways(&self) -> WaysConfig {
        let own = (!self.dht_bootstrap.is_empty()).then(|| DhtConfig {
            bootstrap: self.dht_bootstrap.clone(),
            public: false,
        });
        WaysConfig {
            lan: self.lan.unwrap_or(true),
            dht: self.dht.unwrap_or(true).then(|| own.unwrap_or_default()),
            relay: self.relay.map_or(RelayOffer::Auto, |choice| choice.0),
        }
    }

    /// The numerics mode that follows from these settings.
    #[must_use]
    pub fn numerics(&self, in_ring: bool) -> Numerics {
        match self.numerics {
            Some(choice) => choice.into(),
            None if in_ring => Numerics::Exact,
            None => Numerics::Throughput,
        }
    }

    /// Who may see the requests made here.
    #[must_use]
    pub fn room(&self) -> Room {
        self.room.map_or(Room::Square, Room::from)
    }

    /// For whom this node computes.
    #[must_use]
    pub fn serve(&self) -> Room {
        self.serve.map_or(Room::Square, Room::from)
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
mod tests;
