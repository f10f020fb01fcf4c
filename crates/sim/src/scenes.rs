//! The worlds that tests and campaigns run, and what is asked of each.

use crate::check::Sight;
use crate::churn::{Churn, Exodus};
use crate::liar::Lie;
use crate::request::Ends;
use crate::setup::Setup;
use crate::weather::{Cut, Weather};
use crate::world::{SECOND_US, World};
use std::fmt;

/// How long the end of a run is, over which its sight is taken, in seconds.
const END_S: u64 = 60;
/// The churn that the commons must stand: three tenths of all nodes go in a minute.
pub const RESTLESS: Churn = Churn { a_minute: 0.3 };

/// One kind of world.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// What it is called.
    pub name: &'static str,
    /// How long it runs, in seconds.
    pub seconds: u64,
    setup: fn(u64) -> Setup,
    asks: fn(&Outcome) -> Vec<(&'static str, bool)>,
}

/// All scenes that are small enough for every test run.
pub const SCENES: [Scene; 9] = [
    Scene {
        name: "pair",
        seconds: 200,
        setup: |seed| Setup::quiet(seed, 2),
        asks: |outcome| vec![("they know each other", outcome.sight.complete() >= 1.0)],
    },
    Scene {
        name: "quiet",
        seconds: 240,
        setup: |seed| Setup {
            asks: 0.3,
            ..Setup::quiet(seed, 50)
        },
        asks: |outcome| {
            vec![
                (
                    "everybody knows everybody",
                    outcome.sight.complete() > 0.999,
                ),
                (
                    "nobody counts who is gone",
                    outcome.sight.true_share() >= 1.0,
                ),
                ("all requests finish", outcome.ends.finished_share() >= 1.0),
                ("there were requests", outcome.ends.finished > 20),
            ]
        },
    },
    Scene {
        name: "churn",
        seconds: 360,
        setup: |seed| Setup {
            churn: RESTLESS,
            weather: lossy(0.02),
            asks: 1.5,
            ..Setup::quiet(seed, 100)
        },
        asks: |outcome| {
            vec![
                ("nodes went", outcome.departures > 50),
                ("rings lost stages", outcome.losses > 5),
                ("requests finish", outcome.ends.finished_share() >= 0.97),
                ("nodes know each other", outcome.sight.complete() > 0.9),
                (
                    "most who are counted are there",
                    outcome.sight.true_share() > 0.75,
                ),
            ]
        },
    },
    Scene {
        name: "cut",
        seconds: 620,
        setup: |seed| Setup {
            weather: Weather {
                loss: 0.01,
                cuts: vec![
                    Cut {
                        from_s: 60,
                        until_s: 90,
                        west: 0.5,
                    },
                    Cut {
                        from_s: 150,
                        until_s: 330,
                        west: 0.4,
                    },
                ],
            },
            ..Setup::quiet(seed, 60)
        },
        asks: |outcome| {
            vec![(
                "the commons grows together again",
                outcome.sight.complete() > 0.98,
            )]
        },
    },
    Scene {
        name: "liars",
        seconds: 360,
        setup: |seed| Setup {
            churn: Churn { a_minute: 0.03 },
            weather: lossy(0.01),
            lies: vec![
                (Lie::Boast, 4),
                (Lie::Haunt, 4),
                (Lie::Sybil(200), 1),
                (Lie::Equivocate, 2),
                (Lie::Replay, 2),
                (Lie::FutureDate, 2),
            ],
            asks: 0.3,
            ..Setup::quiet(seed, 80)
        },
        asks: |outcome| {
            vec![
                ("equivocation was met", outcome.refused("equivocation") > 0),
                (
                    "dates in the future were met",
                    outcome.refused("future-dated") > 0,
                ),
                ("hosts were full", outcome.refused("host quota") > 0),
                (
                    "old ads were played back",
                    outcome.refused("older") + outcome.refused("known") > 0,
                ),
                (
                    "honest nodes know each other",
                    outcome.sight.complete() > 0.97,
                ),
                ("requests finish", outcome.ends.finished_share() >= 0.97),
            ]
        },
    },
    Scene {
        name: "eclipse",
        seconds: 300,
        setup: |seed| Setup {
            lies: vec![(Lie::Eclipse(60), 8)],
            ..Setup::quiet(seed, 60)
        },
        asks: |outcome| {
            vec![
                ("hosts were full", outcome.refused("host quota") > 0),
                (
                    "honest nodes know each other",
                    outcome.sight.complete() > 0.97,
                ),
                ("the victim knows the honest", outcome.victim > 0.95),
            ]
        },
    },
    Scene {
        name: "exodus",
        seconds: 600,
        setup: |seed| Setup {
            churn: Churn { a_minute: 0.03 },
            weather: lossy(0.01),
            asks: 1.0,
            exodus: Some(Exodus {
                from_s: 120,
                lasts_s: 300,
                share: 0.6,
            }),
            ..Setup::quiet(seed, 120)
        },
        asks: |outcome| {
            vec![
                ("more than half went", outcome.departures > 60),
                ("rings lost stages", outcome.losses > 5),
                ("requests finish", outcome.ends.finished_share() >= 0.97),
                (
                    "those who are left know each other",
                    outcome.sight.complete() > 0.97,
                ),
                (
                    "most who are counted are there",
                    outcome.sight.true_share() > 0.9,
                ),
            ]
        },
    },
    Scene {
        name: "rush",
        seconds: 300,
        setup: |seed| Setup {
            asks: 0.5,
            late: Some((120, 200)),
            ..Setup::quiet(seed, 240)
        },
        asks: |outcome| {
            vec![
                ("everybody knows everybody", outcome.sight.complete() > 0.99),
                ("all requests finish", outcome.ends.finished_share() >= 0.99),
                ("there were requests", outcome.ends.finished > 20),
            ]
        },
    },
    Scene {
        name: "herd",
        seconds: 480,
        setup: |seed| Setup {
            rings: HERD_RINGS,
            late: Some((180, 20)),
            ..Setup::quiet(seed, 90)
        },
        asks: |outcome| {
            let rings = HERD_RINGS as u64;
            vec![
                ("all rings stand at the end", outcome.rings == HERD_RINGS),
                ("rings stand all the time", outcome.up_share > 0.98),
                ("some moved to the newcomers", outcome.moves > 0),
                (
                    "rings do not move again and again",
                    outcome.moves <= 2 * rings,
                ),
                ("no ring does", outcome.moves_most <= 4),
                ("no herd at anybody's door", outcome.load_refusals <= rings),
            ]
        },
    },
];

/// Coordinators with a ring that stands, in the scene of a herd.
const HERD_RINGS: usize = 20;

/// The commons as it must be: a thousand nodes, of which three tenths go in a minute. All of them gossip; a quarter keeps
/// a table and asks, so that a run takes minutes.
pub const THOUSAND: Scene = Scene {
    name: "thousand",
    seconds: 300,
    setup: |seed| Setup {
        churn: RESTLESS,
        weather: lossy(0.01),
        asks: 1.0,
        listens: 4,
        ..Setup::quiet(seed, 1_000)
    },
    asks: |outcome| {
        vec![
            ("nodes went", outcome.departures > 1_000),
            ("rings lost stages", outcome.losses > 20),
            (
                "99 of 100 requests finish",
                outcome.ends.finished_share() >= 0.99,
            ),
        ]
    },
};

fn lossy(loss: f64) -> Weather {
    Weather {
        loss,
        cuts: Vec::new(),
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its scene.
    pub scene: &'static str,
    /// Its seed.
    pub seed: u64,
    /// The hash of all that happened.
    pub history: String,
    /// Events.
    pub events: u64,
    /// What did not hold.
    pub faults: Vec<String>,
    /// How well honest nodes saw at the end.
    pub sight: Sight,
    /// Which share of the honest nodes the victim knew at the end.
    pub victim: f64,
    /// How requests ended.
    pub ends: Ends,
    /// Plans that were made.
    pub plans: u64,
    /// Rings that lost a stage.
    pub losses: u64,
    /// Nodes that went.
    pub departures: u64,
    /// Rings that stand at the end.
    pub rings: usize,
    /// Which share of the time rings stood, once they had been formed.
    pub up_share: f64,
    /// How often such rings moved, all together and the most of one.
    pub moves: u64,
    /// The most moves of one.
    pub moves_most: u32,
    /// Loads that were refused since another ring had taken the memory.
    pub load_refusals: u64,
    /// The mean time of a token that they expect, in milliseconds.
    pub token_ms: f64,
    refused: Vec<(&'static str, u64)>,
}

impl Outcome {
    /// How many ads were refused for a reason.
    #[must_use]
    pub fn refused(&self, why: &str) -> u64 {
        let all = self.refused.iter().filter(|(reason, _)| *reason == why);
        all.map(|(_, count)| count).sum()
    }

    /// Whether all that must hold did.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.faults.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = self.ends;
        write!(
            f,
            "{} seed {}: history {}, {} events, {} departures; knows {:.4}, true {:.4}; requests {} finished, {} failed, \
             {} uncovered, {} orphaned, {} open, {} plans, {} losses; refused {:?}",
            self.scene,
            self.seed,
            self.history,
            self.events,
            self.departures,
            self.sight.complete(),
            self.sight.true_share(),
            ends.finished,
            ends.failed,
            ends.uncovered,
            ends.orphaned,
            ends.open,
            self.plans,
            self.losses,
            self.refused,
        )?;
        if self.rings > 0 {
            write!(
                f,
                "; {} rings stand, {:.4} of the time, {} moves ({} of one), {} loads refused, {:.0} ms a token",
                self.rings,
                self.up_share,
                self.moves,
                self.moves_most,
                self.load_refusals,
                self.token_ms
            )?;
        }
        self.faults
            .iter()
            .try_for_each(|fault| write!(f, "\n  FAULT {fault}"))
    }
}

impl Scene {
    /// The scene of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = SCENES.into_iter().chain([THOUSAND]);
        all.find(|scene| scene.name == name)
    }

    /// Runs a seed.
    #[must_use]
    pub fn run(&self, seed: u64) -> Outcome {
        let mut world = World::new((self.setup)(seed));
        world.run(self.seconds - END_S);
        world.check.sight = Sight::default();
        world.run(END_S);
        let requests = world.requests();
        let mut outcome = Outcome {
            scene: self.name,
            seed,
            history: world.history(),
            events: world.tally.events,
            faults: world.faults().to_vec(),
            sight: world.check.sight,
            victim: world.victim_sees(),
            ends: requests.ends(),
            plans: requests.plans,
            losses: requests.losses,
            departures: world.tally.departures,
            rings: world.rings().up(),
            up_share: world.rings().up_share(self.seconds * SECOND_US),
            moves: world.rings().moves,
            moves_most: world.rings().moves_most(),
            load_refusals: world.rings().refused,
            token_ms: world.rings().token_ms(),
            refused: world
                .tally
                .refused
                .iter()
                .map(|(why, count)| (*why, *count))
                .collect(),
        };
        let missed = (self.asks)(&outcome)
            .into_iter()
            .filter(|(_, holds)| !holds);
        let missed: Vec<String> = missed.map(|(what, _)| format!("not so: {what}")).collect();
        outcome.faults.extend(missed);
        outcome
    }
}
