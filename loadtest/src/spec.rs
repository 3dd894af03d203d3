//! What to run: one value, from a TOML file, from flags, or from both.
//!
//! Every scenario is the same set of keys with other defaults, so that a file can turn one into another and a
//! report can print exactly what was run. The file names the scenario; keys it leaves out keep that
//! scenario's defaults, and flags override both. [`Spec::check`] refuses what makes no sense and names the key,
//! the value and what was expected. Units are in the names.

mod layout;
mod schedule;
mod sizes;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use layout::{Layout, PublisherPlan};
pub(crate) use schedule::{Arrivals, Shape};
pub(crate) use sizes::Sizes;

use crate::dialect::Dialect;

/// The scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Connect, hold, call the roll; optionally one busy room and broadcasts to everyone.
    Idle,
    /// Every message comes back to its sender.
    Echo,
    /// One room.
    Fanout,
    /// Many rooms of Zipf sizes and several publishers.
    Rooms,
    /// Clients come and go while others publish.
    Churn,
    /// A share of the clients drops at once and returns.
    Storm,
    /// A share of the clients reads badly or not at all.
    Slow,
    /// Many rooms, messages of many sizes, random arrivals.
    Mixed,
}

impl Kind {
    /// The name, as files and the command line have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Echo => "echo",
            Self::Fanout => "fanout",
            Self::Rooms => "rooms",
            Self::Churn => "churn",
            Self::Storm => "storm",
            Self::Slow => "slow",
            Self::Mixed => "mixed",
        }
    }
}

/// How a slow client misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SlowKind {
    /// Stops reading while others publish, then reads on.
    Stop,
    /// Reads a little ten times a second.
    Trickle,
    /// Vanishes without a word: its host drops every packet.
    HalfOpen,
    /// Reads, but never answers a ping.
    Mute,
}

/// A whole scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    pub(crate) scenario: Kind,
    pub(crate) target: TargetSpec,
    pub(crate) crowd: Crowd,
    pub(crate) rooms: Rooms,
    pub(crate) load: Load,
    pub(crate) trouble: Trouble,
    /// What the run must keep to: the name of a figure, as `compare` has it, and its limit.
    #[serde(default)]
    pub(crate) budget: Budget,
}

/// Limits by the names of figures.
pub(crate) type Budget = BTreeMap<String, f64>;

/// Where to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetSpec {
    pub(crate) url: String,
    pub(crate) dialect: Dialect,
    /// Source addresses, as `127.0.0.1-40`; empty to let the kernel choose.
    pub(crate) src: String,
    /// How long a phase may go without progress.
    pub(crate) patience_ms: u64,
    /// `wss://`: a PEM file with the authorities that are believed; empty for none.
    pub(crate) ca: String,
    /// `wss://`: whether anybody is believed.
    pub(crate) insecure: bool,
    /// The HS256 secret by which each client gets a token; empty for none.
    pub(crate) token_secret: String,
}

/// Who connects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Crowd {
    pub(crate) clients: u32,
    /// 0: as many as the descriptor limit asks for.
    pub(crate) threads: u32,
    /// Cores to run on; empty for all.
    pub(crate) cores: Vec<usize>,
    /// Connections a second; 0 for as fast as they go.
    pub(crate) ramp_per_s: f64,
    /// Connections under way at one time, over all threads.
    pub(crate) at_once: u32,
    /// Read buffer of a client; 0 chooses by the number of clients.
    pub(crate) read_bytes: u32,
    /// Pause between the last connection and the first message.
    pub(crate) hold_s: f64,
    /// Pings that each client asks and counts at the end.
    pub(crate) roll_calls: u32,
    /// Share of the clients that read some 25 times a second instead of at once. Everything they get is
    /// counted, but no latency is taken from them.
    pub(crate) lazy: f64,
    /// Share of the clients that listen by event streams instead of WebSockets.
    pub(crate) streams: f64,
    /// The path of event streams, with a query if need be.
    pub(crate) stream_path: String,
}

/// Who hears whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rooms {
    pub(crate) count: u32,
    /// Exponent of the sizes: 0 for equal rooms, 1 for sizes that fall as 1/rank.
    pub(crate) zipf: f64,
    pub(crate) publishers: u32,
    /// Beginning of the rooms' names; empty for one that no other run uses.
    pub(crate) prefix: String,
    /// Idle: members of a room that is published to while the rest is silent.
    pub(crate) side: u32,
    /// Idle: publications to a room of everyone, one a second, at the end.
    pub(crate) broadcast: u64,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Load {
    /// Messages a second of all publishers together; echo: 0 for a closed loop.
    pub(crate) rate: f64,
    /// Where step and ramp end.
    pub(crate) rate_to: f64,
    pub(crate) schedule: Shape,
    /// Messages that leave together.
    pub(crate) burst: u32,
    /// 0: as many as fit the duration.
    pub(crate) messages: u64,
    /// 0: until all messages are sent.
    pub(crate) duration_s: f64,
    pub(crate) size: Sizes,
    /// Closed loop: how many messages a publisher may be ahead of its slowest room; 0 for an open loop.
    pub(crate) window: u64,
    /// Echo, closed loop: messages that a client has under way.
    pub(crate) depth: u32,
}

/// What goes wrong on purpose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trouble {
    /// Churn: mean length of a session.
    pub(crate) stay_s: f64,
    /// Churn: share of the sessions that end without a close frame.
    pub(crate) abort: f64,
    /// Storm: share of the clients that drops.
    pub(crate) drop: f64,
    /// Storm: when, from the first message.
    pub(crate) drop_at_s: f64,
    /// Storm: all are to be back within this time, spread evenly; 0 for at once.
    pub(crate) return_within_s: f64,
    /// Storm: return by exponential back-off with full jitter instead, up to 30 s.
    pub(crate) back_off: bool,
    /// Storm: drop again every so many seconds; 0 for once.
    pub(crate) again_s: f64,
    /// Storm: come back with the cursors of the rooms, and count as lost what is missing from before.
    pub(crate) resume: bool,
    /// Slow: share of the clients.
    pub(crate) slow: f64,
    pub(crate) slow_kind: SlowKind,
}

impl Spec {
    /// A scenario with its defaults.
    #[must_use]
    pub(crate) fn new(scenario: Kind) -> Self {
        let mut spec = Self {
            scenario,
            target: TargetSpec {
                url: "ws://127.0.0.1:8080/ws".to_owned(),
                dialect: Dialect::Throng,
                src: String::new(),
                patience_ms: 30_000,
                ca: String::new(),
                insecure: false,
                token_secret: String::new(),
            },
            crowd: Crowd {
                clients: 200,
                threads: 0,
                cores: Vec::new(),
                ramp_per_s: 0.0,
                at_once: 256,
                read_bytes: 0,
                hold_s: 0.0,
                roll_calls: 0,
                lazy: 0.0,
                streams: 0.0,
                stream_path: "/sse".to_owned(),
            },
            rooms: Rooms {
                count: 1,
                zipf: 0.0,
                publishers: 1,
                prefix: String::new(),
                side: 0,
                broadcast: 0,
            },
            load: Load {
                rate: 100.0,
                rate_to: 0.0,
                schedule: Shape::Constant,
                burst: 1,
                messages: 0,
                duration_s: 5.0,
                size: Sizes::default(),
                window: 0,
                depth: 1,
            },
            trouble: Trouble {
                stay_s: 1.0,
                abort: 0.5,
                drop: 0.5,
                drop_at_s: 2.0,
                return_within_s: 2.0,
                back_off: false,
                again_s: 0.0,
                resume: false,
                slow: 0.1,
                slow_kind: SlowKind::Stop,
            },
            budget: Budget::new(),
        };
        spec.specialise();
        spec
    }

    fn specialise(&mut self) {
        match self.scenario {
            Kind::Idle => {
                (self.crowd.clients, self.crowd.hold_s, self.crowd.roll_calls) = (1000, 5.0, 3);
            }
            Kind::Echo => self.load.rate = 0.0,
            Kind::Fanout => {}
            Kind::Rooms => {
                (self.rooms.count, self.rooms.zipf, self.rooms.publishers) = (50, 1.0, 4);
                self.load.rate = 500.0;
            }
            Kind::Churn => {
                (self.rooms.count, self.load.rate, self.load.duration_s) = (10, 200.0, 8.0)
            }
            Kind::Storm => (self.crowd.clients, self.load.duration_s) = (500, 8.0),
            Kind::Slow => self.load.rate = 500.0,
            Kind::Mixed => {
                (self.rooms.count, self.rooms.zipf, self.rooms.publishers) = (20, 1.0, 4);
                (self.load.rate, self.load.schedule) = (300.0, Shape::Poisson);
                self.load.size = Sizes::mixed();
            }
        }
    }

    /// Reads a scenario file over the defaults of the scenario that it names.
    ///
    /// # Errors
    /// Names the key, its value and what was expected.
    pub(crate) fn from_toml(text: &str) -> Result<Self, String> {
        let given: toml::Table = text.parse().map_err(|e| format!("not TOML: {e}"))?;
        let kind = given.get("scenario").ok_or(
            "the key `scenario` is missing: expected one of idle, echo, fanout, rooms, churn, storm, slow, mixed",
        )?;
        let kind =
            Kind::deserialize(kind.clone()).map_err(|e| format!("scenario = {kind}: {e}"))?;
        Self::new(kind).merged(given)
    }

    /// The scenario with one key changed, given as `rooms.count=20`. What is not TOML is taken as a string.
    ///
    /// # Errors
    /// Names the key, its value and what was expected.
    pub(crate) fn with(&self, set: &str) -> Result<Self, String> {
        let Some((key, value)) = set.split_once('=') else {
            return Err(format!("--set {set}: expected KEY=VALUE"));
        };
        let table = |value: &str| format!("{key} = {value}").parse::<toml::Table>();
        let given = table(value).or_else(|_| table(&format!("{value:?}")));
        self.merged(given.map_err(|error| format!("--set {set}: {error}"))?)
    }

    fn merged(&self, given: toml::Table) -> Result<Self, String> {
        let mut merged = toml::Table::try_from(self).map_err(|e| e.to_string())?;
        merge(&mut merged, given, "")?;
        // Once more through text, so that a wrong value is shown in its line.
        let text = toml::to_string(&merged).map_err(|e| e.to_string())?;
        toml::from_str(&text).map_err(|e| e.to_string().trim_end().to_owned())
    }

    /// The scenario as a file that reads back as itself.
    pub(crate) fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# {error}\n"))
    }

    /// True when what a client gets back are its own messages: echoes, or a roll called where the dialect has
    /// no ping of its own.
    pub(crate) fn echoes(&self) -> bool {
        self.scenario == Kind::Echo
            || self.scenario == Kind::Idle && self.target.dialect != Dialect::Throng
    }

    /// True when messages leave by a schedule whatever the server does.
    pub(crate) fn is_open_loop(&self) -> bool {
        match self.scenario {
            Kind::Echo => self.load.rate > 0.0,
            // A roll call goes as fast as it goes.
            Kind::Idle => self.rooms.side > 0 || self.rooms.broadcast > 0,
            _ => self.load.window == 0,
        }
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// Names the key, its value and what was expected.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (crowd, rooms, load, trouble) = (&self.crowd, &self.rooms, &self.load, &self.trouble);
        let share = |key: &str, value: f64| match value {
            0.0..=1.0 => Ok(()),
            _ => Err(format!("{key} = {value}: expected a share from 0 to 1")),
        };
        let no_less = |key: &str, value: f64| match value {
            0.0.. if value.is_finite() => Ok(()),
            _ => Err(format!("{key} = {value}: expected a number from 0 on")),
        };
        let some = |key: &str, value: u64| match value {
            0 => Err(format!("{key} = 0: expected at least 1")),
            _ => Ok(()),
        };
        some("crowd.clients", crowd.clients.into())?;
        some("crowd.at_once", crowd.at_once.into())?;
        some("rooms.count", rooms.count.into())?;
        some("rooms.publishers", rooms.publishers.into())?;
        some("load.burst", load.burst.into())?;
        some("load.depth", load.depth.into())?;
        some("target.patience_ms", self.target.patience_ms)?;
        share("crowd.lazy", crowd.lazy)?;
        share("crowd.streams", crowd.streams)?;
        share("trouble.abort", trouble.abort)?;
        share("trouble.drop", trouble.drop)?;
        share("trouble.slow", trouble.slow)?;
        no_less("crowd.ramp_per_s", crowd.ramp_per_s)?;
        no_less("crowd.hold_s", crowd.hold_s)?;
        no_less("rooms.zipf", rooms.zipf)?;
        no_less("load.rate", load.rate)?;
        no_less("load.rate_to", load.rate_to)?;
        no_less("load.duration_s", load.duration_s)?;
        no_less("trouble.stay_s", trouble.stay_s)?;
        no_less("trouble.return_within_s", trouble.return_within_s)?;
        no_less("trouble.again_s", trouble.again_s)?;
        for (name, limit) in &self.budget {
            no_less(&format!("budget.{name}"), *limit)?;
        }
        self.check_together()
    }

    /// What single keys allow and their combination does not.
    fn check_together(&self) -> Result<(), String> {
        let (rooms, load) = (&self.rooms, &self.load);
        let echoes = self.scenario == Kind::Echo;
        let publishes = !echoes && (self.scenario != Kind::Idle || rooms.side > 0);
        if publishes && load.window == 0 && load.rate <= 0.0 {
            return Err(
                "load.rate = 0: expected a rate, or load.window for a closed loop".to_owned()
            );
        }
        if (publishes || echoes) && load.messages == 0 && load.duration_s <= 0.0 {
            return Err(
                "load.messages = 0 and load.duration_s = 0: expected one of them".to_owned()
            );
        }
        if matches!(load.schedule, Shape::Step | Shape::Ramp) && load.duration_s <= 0.0 {
            return Err("load.duration_s = 0: a step or a ramp needs a duration".to_owned());
        }
        if rooms.count > self.crowd.clients {
            let clients = self.crowd.clients;
            let count = rooms.count;
            return Err(format!(
                "rooms.count = {count}: expected at most one per client ({clients})"
            ));
        }
        let resumes = self.scenario == Kind::Storm && self.target.dialect == Dialect::Throng;
        if self.trouble.resume && !resumes {
            return Err("trouble.resume = true: expected only in a storm with the dialect throng"
                .to_owned());
        }
        self.check_streams()?;
        if rooms.side > self.crowd.clients {
            return Err(format!("rooms.side = {}: expected at most all clients", rooms.side));
        }
        if self.scenario == Kind::Idle && self.target.dialect != Dialect::Throng {
            let rooms = u64::from(rooms.side) + rooms.broadcast;
            if rooms > 0 {
                return Err(
                    "rooms.side and rooms.broadcast: expected only with the dialect throng"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

impl Spec {
    /// A stream can only be listened to, and has no pings that it could leave unanswered.
    fn check_streams(&self) -> Result<(), String> {
        let Crowd { streams, stream_path, .. } = &self.crowd;
        if *streams == 0.0 {
            return Ok(());
        }
        let speaks = matches!(self.scenario, Kind::Idle | Kind::Echo);
        if speaks || self.target.dialect != Dialect::Throng {
            return Err(format!(
                "crowd.streams = {streams}: expected only with the dialect throng, and not in idle or echo"
            ));
        }
        if self.scenario == Kind::Slow && self.trouble.slow_kind == SlowKind::Mute {
            return Err(format!(
                "crowd.streams = {streams}: expected 0 with trouble.slow_kind = \"mute\", as a stream answers no ping"
            ));
        }
        if !stream_path.starts_with('/') {
            return Err(format!("crowd.stream_path = {stream_path:?}: expected a path, as /sse"));
        }
        Ok(())
    }
}

/// The table whose keys are names of figures.
const BUDGET: &str = "budget.";

/// Lays `over` upon `under`, table by table. A key that `under` lacks does not exist.
fn merge(under: &mut toml::Table, over: toml::Table, path: &str) -> Result<(), String> {
    for (key, value) in over {
        let names: Vec<String> = under.keys().cloned().collect();
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => {
                merge(inner, value, &format!("{path}{key}."))?;
            }
            // A whole number may stand where a fraction is meant.
            (Some(slot @ toml::Value::Float(_)), toml::Value::Integer(whole)) => {
                let text = format!("{whole}.0");
                *slot = toml::Value::Float(text.parse().unwrap_or(f64::NAN));
            }
            // A single size may be written as a number.
            (Some(slot @ toml::Value::String(_)), toml::Value::Integer(whole)) if key == "size" => {
                *slot = toml::Value::String(whole.to_string());
            }
            (Some(slot), value) => *slot = value,
            // Any figure may have a limit; which there are, the run shows.
            (None, value) if path == BUDGET => {
                let whole = value.as_integer().map(|whole| format!("{whole}.0"));
                let limit = whole.and_then(|text| text.parse().ok()).or(value.as_float());
                let limit =
                    limit.ok_or_else(|| format!("{path}{key} = {value}: expected a number"))?;
                under.insert(key, toml::Value::Float(limit));
            }
            (None, value) => {
                let near = names.iter().min_by_key(|name| strsim::levenshtein(name, &key));
                let near =
                    near.map_or_else(String::new, |near| format!("; did you mean {path}{near}?"));
                return Err(format!("{path}{key} = {value}: no such key{near}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
