//! The parts of a model that a process holds, and the sessions in them.
//!
//! A session takes one sequence index in every part, so that head and tail of one request agree on it.

use crate::adapters::{AdapterError, AdapterSet, Shelf};
use crate::extent::{Extent, ExtentError};
use crate::llama::{
    Context, ContextSpec, Embedder, Input, LoadError, Model, Pool, Reading, Slice, StepError,
    Wanted, cpu_class,
};
use crate::prefix::{Begin, Slots};
use proto::host::{
    AdapterUse, GUESSES_MAX, LoadAdapter, LoadSpec, Loaded, Memory, Role, SESSIONS_MAX,
};
use proto::ids::{SessionId, ShareScope};
use proto::model::Numerics;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// The most rows of one step.
pub const STEP_ROWS_MAX: u32 = 2048;

/// Why parts were not loaded.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// A file cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// No context can be made, most often for want of memory.
    #[error("no context for {positions} positions × {sessions} sessions: {why}")]
    Context {
        /// Positions of each session.
        positions: u32,
        /// Sessions.
        sessions: u32,
        /// llama.cpp's words.
        why: String,
    },
    /// The specification makes no sense.
    #[error("{0}")]
    Spec(&'static str),
    /// More is asked for than the model or the memory has.
    #[error(transparent)]
    Extent(#[from] ExtentError),
}

/// Why a session cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Every sequence is in use.
    #[error("all {0} sessions are in use")]
    Full(u32),
    /// The session is not open.
    #[error("the session is not open")]
    Unknown,
    /// The position is not the end of the cache.
    #[error("position {position} is not the cache's end, {length}")]
    Position {
        /// What was asked.
        position: u32,
        /// Where the cache ends.
        length: u32,
    },
    /// The rows do not fit behind the position.
    #[error("{rows} rows at position {position} do not fit into {positions_max} positions")]
    TooLong {
        /// First position.
        position: u32,
        /// How many rows.
        rows: u32,
        /// Positions of a session.
        positions_max: u32,
    },
    /// The cache cannot be cut back.
    #[error("this model's cache cannot be cut back to {0}")]
    Untrimmable(u32),
    /// An adapter cannot be loaded or used.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// No embeddings can be made.
    #[error("this model gives no embeddings: {0}")]
    NoEmbeddings(String),
    /// No such part was loaded.
    #[error("no {0:?} was loaded here")]
    NoPart(Role),
}

#[derive(Debug)]
struct Part {
    role: Role,
    context: Context,
    /// Positions in the cache, by sequence.
    lengths: Vec<u32>,
}

/// One row or several of a session in a step.
#[derive(Debug, Clone, Copy)]
pub struct SessionSlice<'a> {
    /// The session.
    pub session: SessionId,
    /// The position of the first row.
    pub position: u32,
    /// The rows.
    pub input: Input<'a>,
    /// What comes out.
    pub wanted: Wanted,
}

/// All parts of a process.
#[derive(Debug)]
pub struct Parts {
    parts: Vec<Part>,
    sequences: HashMap<SessionId, u32>,
    slots: Slots,
    positions_max: u32,
    sessions_max: u32,
    step_rows_max: u32,
    pool: Rc<Pool>,
    numerics: Numerics,
    /// Of the whole model or of the tail; made when it is first asked for.
    embedder: Option<Embedder>,
    shelf: Shelf,
    /// The adapters of open sessions that use some.
    worn: HashMap<SessionId, AdapterSet>,
}

impl Parts {
    /// Loads every part of a specification on a pool of `threads_max` threads; with weights that are only counted,
    /// nothing can be computed.
    ///
    /// # Errors
    ///
    /// [`PartsError`].
    pub fn load(spec: &LoadSpec, threads_max: u32, reading: Reading) -> Result<Self, PartsError> {
        if spec.parts.is_empty() {
            return Err(PartsError::Spec("no part is named"));
        }
        if !(1..=SESSIONS_MAX).contains(&spec.sessions_max) {
            return Err(PartsError::Spec("sessions_max is out of range"));
        }
        let pool = Rc::new(Pool::new(threads_max));
        let models = spec
            .parts
            .iter()
            .map(|part| Model::load(&part.files, reading).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let extent = Extent::of(spec, models.iter().map(AsRef::as_ref))?;
        let (positions_max, sessions_max) = (extent.positions, extent.sessions);
        let step_rows_max = spec.step_rows_max.clamp(1, STEP_ROWS_MAX);
        let mut parts = Vec::new();
        for (part, model) in spec.parts.iter().zip(models) {
            let activations_out = matches!(part.role, Role::Head | Role::Middle);
            let outputs_max = match reading {
                Reading::Counted if !activations_out => sessions_max * (1 + GUESSES_MAX as u32),
                _ => 0,
            };
            let context_spec = ContextSpec {
                numerics: spec.numerics,
                positions_max,
                sequences: sessions_max,
                step_rows_max,
                activations_out,
                kv: spec.kv,
                rope_scale: extent.rope_scale,
                outputs_max,
            };
            let context = Context::new(model, pool.clone(), context_spec).map_err(|why| {
                PartsError::Context {
                    positions: positions_max,
                    sessions: sessions_max,
                    why,
                }
            })?;
            let lengths = vec![0; sessions_max as usize];
            parts.push(Part {
                role: part.role,
                context,
                lengths,
            });
        }
        Ok(Self {
            parts,
            sequences: HashMap::new(),
            slots: Slots::new(sessions_max),
            positions_max,
            sessions_max,
            step_rows_max,
            pool,
            numerics: spec.numerics,
            embedder: None,
            shelf: Shelf::new(spec.adapters_dir.as_ref()),
            worn: HashMap::new(),
        })
    }

    /// Memory of weights, caches and steps; the process itself is not in it.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let none = Memory {
            positions_max: self.positions_max,
            sessions_max: self.sessions_max,
            ..Memory::default()
        };
        let parts = self.parts.iter().map(|part| part.context.memory());
        parts.fold(none, |sum, part| Memory {
            weights_bytes: sum.weights_bytes.saturating_add(part.weights_bytes),
            cache_bytes: sum.cache_bytes.saturating_add(part.cache_bytes),
            compute_bytes: sum.compute_bytes.saturating_add(part.compute_bytes),
            ..sum
        })
    }

    /// What was loaded, for the node.
    #[must_use]
    pub fn loaded(&self, spec: &LoadSpec) -> Loaded {
        let context = &self.parts[0].context;
        let model = context.model();
        Loaded {
            architecture: model.architecture(),
            embedding_length: model.embedding_length(),
            vocabulary: self
                .parts
                .iter()
                .map(|p| p.context.model().vocabulary())
                .max()
                .unwrap_or(0),
            positions_max: self.positions_max,
            positions_trained: model.positions_trained(),
            build: crate::llama::build(spec.rope_scale),
            cpu_class: cpu_class(),
            kv_type: context.kv_type().to_owned(),
            flash_attention: spec.numerics == proto::model::Numerics::Throughput,
            // Known to whoever sealed the process, which comes before loading.
            sandbox: proto::host::Sandbox::default(),
            sessions_max: self.sessions_max,
        }
    }

    /// The model that knows tokens: whole, head or tail.
    #[must_use]
    pub fn model(&self) -> &Model {
        self.parts[0].context.model()
    }

    /// The same, to keep.
    #[must_use]
    pub fn shared_model(&self) -> Arc<Model> {
        self.parts[0].context.shared_model()
    }

    /// Positions of each session.
    #[must_use]
    pub fn positions_max(&self) -> u32 {
        self.positions_max
    }

    /// Rows of one step at most.
    #[must_use]
    pub fn step_rows_max(&self) -> u32 {
        self.step_rows_max
    }

    /// Open sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sequences.len()
    }

    /// Whether a session is open.
    #[must_use]
    pub fn has(&self, session: SessionId) -> bool {
        self.sequences.contains_key(&session)
    }

    /// Threads of the pool.
    #[must_use]
    pub fn threads_max(&self) -> u32 {
        self.pool.threads_max()
    }

    /// Sets how many threads the next steps use.
    pub fn set_threads(&mut self, threads: u32) {
        for part in &mut self.parts {
            part.context.set_threads(threads);
        }
    }

    /// What makes embeddings, of the whole model from tokens, or of its tail from the activations that enter it.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoPart`] when that part is not here, or [`SessionError::NoEmbeddings`].
    pub fn embedder(&mut self, role: Role) -> Result<&mut Embedder, SessionError> {
        let model = self.part(role)?.context.shared_model();
        if self.embedder.is_none() {
            let made = Embedder::new(model, self.pool.clone(), self.numerics);
            self.embedder = Some(made.map_err(SessionError::NoEmbeddings)?);
        }
        Ok(self.embedder.as_mut().expect("it was just made"))
    }

    /// Loads an adapter for the whole model.
    ///
    /// # Errors
    ///
    /// [`SessionError::Adapter`], or [`SessionError::NoPart`] when only stages are here.
    pub fn load_adapter(&mut self, what: LoadAdapter) -> Result<(), SessionError> {
        let model = self.part(Role::Whole)?.context.shared_model();
        Ok(self.shelf.load(model, what)?)
    }

    /// Forgets an adapter that no session uses.
    ///
    /// # Errors
    ///
    /// [`SessionError::Adapter`].
    pub fn unload_adapter(&mut self, name: &str) -> Result<(), SessionError> {
        self.shelf.unload(name, self.worn.values())?;
        for part in &mut self.parts {
            // The newest step's may be among them.
            part.context.set_adapters(&[]);
        }
        Ok(())
    }

    /// The set that a run names, if the session has not begun with another one.
    ///
    /// # Errors
    ///
    /// [`SessionError::Adapter`].
    pub fn adapters(
        &self,
        session: SessionId,
        uses: &[AdapterUse],
    ) -> Result<AdapterSet, SessionError> {
        let set = self.shelf.set(uses)?;
        let none = AdapterSet::default();
        let worn = self.worn.get(&session).unwrap_or(&none);
        if self.sequences.contains_key(&session) && *worn != set {
            return Err(AdapterError::Changed.into());
        }
        Ok(set)
    }

    /// The session, which is open, computes with this set.
    pub fn wear(&mut self, session: SessionId, set: AdapterSet) {
        if set != AdapterSet::default() {
            self.worn.insert(session, set);
        }
    }

    fn part(&self, role: Role) -> Result<&Part, SessionError> {
        self.parts
            .iter()
            .find(|part| part.role == role)
            .ok_or(SessionError::NoPart(role))
    }

    /// Numbers in a row that comes out of a part.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoPart`].
    pub fn row_length(&self, role: Role) -> Result<usize, SessionError> {
        Ok(self.part(role)?.context.row_length())
    }

    /// Checks that rows may be computed, and opens the session when it is new and they begin at 0.
    ///
    /// # Errors
    ///
    /// [`SessionError`]; nothing has changed then.
    pub fn admit(
        &mut self,
        session: SessionId,
        role: Role,
        position: u32,
        rows: u32,
    ) -> Result<(), SessionError> {
        let part = self.part(role)?;
        let sequence = self.sequences.get(&session).copied();
        let length = sequence.map_or(0, |s| part.lengths[s as usize]);
        if position != length {
            return Err(SessionError::Position { position, length });
        }
        let positions_max = self.positions_max;
        if position
            .checked_add(rows)
            .is_none_or(|end| end > positions_max)
        {
            return Err(SessionError::TooLong {
                position,
                rows,
                positions_max,
            });
        }
        if sequence.is_none() {
            self.open(session, None, &[])?;
        }
        Ok(())
    }

    /// Opens a session of a whole model that begins with `tokens`; returns how many of their rows it need not compute.
    /// An open session needs all of them.
    ///
    /// # Errors
    ///
    /// [`SessionError::Full`].
    pub fn begin(
        &mut self,
        session: SessionId,
        scope: Option<ShareScope>,
        tokens: &[i32],
    ) -> Result<u32, SessionError> {
        if self.sequences.contains_key(&session) {
            return Ok(0);
        }
        let shares = self
            .part(Role::Whole)
            .is_ok_and(|part| part.context.model().trims());
        self.open(session, scope.filter(|_| shares), tokens)
    }

    fn open(
        &mut self,
        session: SessionId,
        scope: Option<ShareScope>,
        tokens: &[i32],
    ) -> Result<u32, SessionError> {
        let opened = self.slots.open(scope, tokens);
        let (sequence, begin) = opened.ok_or(SessionError::Full(self.sessions_max))?;
        let rows = match begin {
            Begin::Empty => 0,
            Begin::Keep { rows } | Begin::Copy { rows, .. } => rows as u32,
        };
        for part in &mut self.parts {
            if let Begin::Copy { from, .. } = begin {
                part.context.copy(from, sequence);
            }
            // Cutting back to nothing always works; a whole cache that shares has been found to cut anywhere.
            part.context.trim(sequence, rows);
            part.lengths[sequence as usize] = rows;
        }
        self.sequences.insert(session, sequence);
        Ok(rows)
    }

    /// The tokens in an open session's cache; known for whole models only.
    #[must_use]
    pub fn tokens(&self, session: SessionId) -> &[i32] {
        self.sequences
            .get(&session)
            .map_or(&[], |sequence| self.slots.tokens(*sequence))
    }

    /// Positions in a session's cache in a part; 0 when it is not open.
    #[must_use]
    pub fn length(&self, session: SessionId, role: Role) -> u32 {
        match (self.sequences.get(&session), self.part(role)) {
            (Some(sequence), Ok(part)) => part.lengths[*sequence as usize],
            _ => 0,
        }
    }

    /// Computes one step in a part: one long slice, or one row each of several sessions. Every slice was admitted.
    ///
    /// # Errors
    ///
    /// [`StepError`]; the caches are then cut back to where they were.
    pub fn step(
        &mut self,
        role: Role,
        slices: &[SessionSlice<'_>],
    ) -> Result<Vec<Vec<f32>>, StepError> {
        let sequences = &self.sequences;
        let part = self.parts.iter_mut().find(|part| part.role == role);
        let part = part.expect("runs are admitted before they are computed");
        let mut order: Vec<usize> = (0..slices.len()).collect();
        order.sort_by_key(|&i| sequences[&slices[i].session]);
        let sorted: Vec<Slice<'_>> = order
            .iter()
            .map(|&i| Slice {
                sequence: sequences[&slices[i].session],
                position: slices[i].position,
                input: slices[i].input,
                wanted: slices[i].wanted,
            })
            .collect();
        // Runs of a step name the same adapters.
        let worn = slices
            .first()
            .and_then(|slice| self.worn.get(&slice.session));
        part.context
            .set_adapters(&worn.map(AdapterSet::pairs).unwrap_or_default());
        match part.context.step(&sorted) {
            Ok(rows) => {
                for slice in &sorted {
                    part.lengths[slice.sequence as usize] += part.context.rows_of(slice) as u32;
                    if let (Role::Whole, Input::Tokens(tokens)) = (role, slice.input) {
                        self.slots.computed(slice.sequence, tokens);
                    }
                }
                let mut out = vec![Vec::new(); slices.len()];
                for (at, values) in order.into_iter().zip(rows) {
                    out[at] = values;
                }
                Ok(out)
            }
            Err(error) => {
                for slice in &sorted {
                    part.context.trim(slice.sequence, slice.position);
                }
                Err(error)
            }
        }
    }

    /// Cuts a session's caches back to `length` positions in every part that has more.
    ///
    /// # Errors
    ///
    /// [`SessionError::Unknown`], or [`SessionError::Untrimmable`] for recurrent models.
    pub fn trim(&mut self, session: SessionId, length: u32) -> Result<(), SessionError> {
        let sequence = *self.sequences.get(&session).ok_or(SessionError::Unknown)?;
        for part in &mut self.parts {
            let at = &mut part.lengths[sequence as usize];
            if *at <= length {
                continue;
            }
            if (length > 0 && !part.context.model().trims()) || !part.context.trim(sequence, length)
            {
                return Err(SessionError::Untrimmable(length));
            }
            *at = length;
        }
        self.slots.trim(sequence, length as usize);
        Ok(())
    }

    /// Forgets a session; unknown ones are ignored. What it computed may stay for others of its scope.
    pub fn close(&mut self, session: SessionId) {
        self.worn.remove(&session);
        if let Some(sequence) = self.sequences.remove(&session)
            && !self.slots.close(sequence)
        {
            for part in &mut self.parts {
                part.context.trim(sequence, 0);
                part.lengths[sequence as usize] = 0;
            }
        }
    }
}
