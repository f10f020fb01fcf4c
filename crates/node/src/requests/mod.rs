//! The path of one answer: prompt, limits, place, and then home or ring.

mod backend;
mod card;
mod places;
mod prompt;
mod pull;
mod run;

pub use card::card;

pub(crate) use run::Reply;

use crate::home::Home;
use crate::ring::session::Course;
use crate::ring::{Coordinator, State, Why};
use crate::rooms::Rooms;
use crate::status::{Answers, Rates};
use api::{Caller, Fault, GenerateRequest, ModelCard};
use engine::{EngineError, Host};
use places::Places;
use proto::host::FailCode;
use proto::ids::{Hash, ShareScope};
use proto::model::Sampling;
use run::Path;
use std::sync::{Arc, Mutex, PoisonError};
use store::models::{Model, Models};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Temperature where neither request nor model's makers say one.
const TEMPERATURE: f32 = 0.8;
/// `top_p` where neither request nor model's makers say one.
const TOP_P: f32 = 0.95;

/// Answers requests; what `api` calls.
#[derive(Debug)]
pub struct Requests {
    model: Model,
    card: ModelCard,
    /// Where others are fetched into.
    models: Models,
    /// Fetches that may begin.
    pulls: Arc<Semaphore>,
    /// The whole model here; `None` once a ring took its place.
    home: Mutex<Option<Arc<Home>>>,
    ring: Option<Arc<Coordinator>>,
    /// Requests that are computed at once.
    places: Arc<Places>,
    rates: Arc<Mutex<Rates>>,
    tasks: TaskTracker,
    salt: [u8; 32],
    rooms: Rooms,
}

impl Requests {
    /// Answers with `home`, or over `ring` as soon as it is up.
    #[must_use]
    pub fn new(
        (model, card): (Model, ModelCard),
        models: Models,
        home: Option<Home>,
        ring: Option<Arc<Coordinator>>,
        sessions_max: u32,
        rooms: Rooms,
    ) -> Self {
        Self {
            model,
            card,
            models,
            pulls: Arc::new(Semaphore::new(pull::PULLS_MAX)),
            home: Mutex::new(home.map(Arc::new)),
            ring,
            places: Places::new(sessions_max),
            rates: Arc::default(),
            tasks: TaskTracker::new(),
            salt: rand::random(),
            rooms,
        }
    }

    /// Counters and rates.
    #[must_use]
    pub fn rates(&self) -> Rates {
        *self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that are being answered.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        self.places.taken()
    }

    /// The ring, where one was asked for.
    #[must_use]
    pub fn ring(&self) -> Option<&Arc<Coordinator>> {
        self.ring.as_ref()
    }

    /// Where the next request will be answered.
    #[must_use]
    pub fn answers(&self) -> Answers {
        match self.path() {
            Ok(Path::Home(_)) => Answers::Home,
            Ok(Path::Ring(_)) => Answers::Ring,
            Err(_) => Answers::Nowhere,
        }
    }

    /// The engine-host that the next request will use.
    ///
    /// # Errors
    ///
    /// A [`Fault`] that says why there is none.
    pub fn host(&self) -> Result<Arc<Host>, Fault> {
        self.engine(&self.path()?)
    }

    /// The engine-host on a path, and no more places than it has sessions: memory may have room for fewer than were asked for.
    fn engine(&self, path: &Path) -> Result<Arc<Host>, Fault> {
        let host = host_of(path).map_err(|error| down(&error))?;
        self.places.set_total(host.loaded().sessions_max);
        Ok(host)
    }

    /// The path of a request that only those in `room` may see.
    fn path_in(&self, room: Option<api::Room>) -> Result<Path, Fault> {
        let mut path = self.path()?;
        if let Path::Ring(course) = &mut path {
            course.room = room;
            course.admits(&course.ring)?;
        }
        Ok(path)
    }

    /// The engine-host that answers here, and how many layers it computes of a token; none while there is none.
    #[must_use]
    pub fn engine_here(&self, layers: u32) -> Option<(Arc<Host>, u32)> {
        let path = self.path().ok()?;
        let host = host_of(&path).ok()?;
        let layers = match path {
            Path::Home(_) => layers,
            Path::Ring(course) => course.ring.layers_here(),
        };
        Some((host, layers))
    }

    /// Waits until every answer has ended.
    pub async fn shut_down(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Home until the first ring is up; from then on the ring alone, since its layers were asked to be elsewhere.
    fn path(&self) -> Result<Path, Fault> {
        let rings = self.ring.as_ref().map(|ring| ring.watch());
        let state = rings.as_ref().map(|rings| rings.borrow().clone());
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(State::Up(ring)), Some(rings)) = (&state, rings) {
            // Whoever still computes at home holds it until done.
            home.take();
            return Ok(Path::Ring(Course {
                ring: ring.clone(),
                rings,
                rooms: self.rooms.clone(),
                room: None,
            }));
        }
        if let Some(home) = &*home {
            return Ok(Path::Home(home.clone()));
        }
        Err(unready(state.as_ref()))
    }

    /// A caller as the engine knows it. Hashed with a number of this process, so that no key leaves it.
    fn scope(&self, caller: &Caller) -> ShareScope {
        let key = caller.0.as_deref().unwrap_or_default();
        let text = [&self.salt, key.as_bytes()].concat();
        let mut scope = [0; ShareScope::LEN];
        scope.copy_from_slice(&Hash::of(&text).0[..ShareScope::LEN]);
        ShareScope(scope)
    }

    fn sampling(&self, request: &GenerateRequest) -> Sampling {
        let makers = self.model.sampling;
        Sampling {
            temperature: request
                .temperature
                .or(makers.map(|m| m.temperature))
                .unwrap_or(TEMPERATURE),
            top_k: request.top_k.unwrap_or(0),
            top_p: request.top_p.or(makers.map(|m| m.top_p)).unwrap_or(TOP_P),
            seed: request.seed.unwrap_or_else(rand::random),
        }
    }
}

/// Why nothing answers, where there is no model at home. Only a ring that was up can have lost a node.
fn unready(ring: Option<&State>) -> Fault {
    match ring {
        Some(State::Waiting {
            why: Some(Why::Lost(why)),
            ..
        }) => Fault::peer_lost(why),
        Some(State::Waiting {
            why: Some(Why::Unformed(why)),
            ..
        }) => Fault::not_ready(why),
        Some(State::Forming { progress, .. }) => Fault::not_ready(match progress {
            None => "the ring is being formed; try again soon".to_owned(),
            Some(how_far) => format!("the ring is loading: {how_far}; try again later"),
        }),
        _ => Fault::not_ready("too few nodes are there for the ring; see: myzel status"),
    }
}

fn host_of(path: &Path) -> Result<Arc<Host>, EngineError> {
    match path {
        Path::Home(home) => home.host(),
        Path::Ring(course) => course.ring.engine.host(),
    }
}

/// The engine here is not there, or was lost in the middle of an answer.
pub(crate) fn down(error: &EngineError) -> Fault {
    match error {
        EngineError::Down(why) => Fault::not_ready(format!(
            "the engine is not running: {why}; it is started again"
        )),
        EngineError::Quarantined(why) => Fault::quarantined(why),
        EngineError::Died(why) => Fault::internal(format!(
            "the engine process ended in the middle of this request: {why}; it is started again, ask again"
        )),
        error => Fault::internal(error.to_string()),
    }
}

/// The engine did not do what a client asked for; `param` is the field to blame where the request was wrong.
pub(crate) fn refused(error: EngineError, param: &str) -> Fault {
    match error {
        EngineError::Failed(failed) => match failed.code {
            FailCode::BadCall => Fault::invalid(param, failed.detail),
            FailCode::Unsupported => Fault::unsupported(param, failed.detail),
            FailCode::NoRoom => Fault::overloaded(failed.detail),
            FailCode::Unloadable | FailCode::Compute => Fault::internal(failed.detail),
        },
        error => down(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(why: Why) -> State {
        let why = Some(why);
        State::Waiting { have: 0, why }
    }

    #[test]
    fn only_a_ring_that_was_up_has_lost_a_node() {
        let lost = waiting(Why::Lost("stage 1 is lost".into()));
        let never = waiting(Why::Unformed("9 layers have no place".into()));
        for (state, status, code, says) in [
            (lost, 502, "peer_lost", "stage 1 is lost"),
            (never, 503, "not_ready", "9 layers have no place"),
        ] {
            let fault = unready(Some(&state));
            assert_eq!((fault.status, fault.code), (status, code));
            assert!(fault.message.contains(says), "{fault}");
        }
        let loading = State::Forming {
            ring: proto::ids::RingId([0; 16]),
            progress: Some("40 % fetched".into()),
        };
        let fault = unready(Some(&loading));
        assert_eq!(fault.code, "not_ready");
        assert!(fault.message.contains("loading: 40 % fetched"), "{fault}");
        let nobody = State::Waiting { have: 0, why: None };
        assert_eq!(unready(Some(&nobody)).code, "not_ready");
        assert_eq!(unready(None).code, "not_ready");
    }
}
