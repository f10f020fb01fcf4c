//! The thread that owns the files of all journals.

use super::files::Files;
use super::seal::{StreamKey, random};
use super::{Answer, Figures, JournalError, Limits, Order, Seat};
use crate::keys::Secret;
use proto::codec;
use proto::ids::{Hash, StreamId};
use proto::journal::{Frames, SALT_BYTES, StreamBatch, StreamStart};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the keeper looks who has gone, and whose time is over.
const LOOK: Duration = Duration::from_secs(1);
/// Orders that are carried out before those who wait for the disk are answered.
const ROUND_ORDERS_MAX: usize = 256;

/// How a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// Somebody streams it.
    Held,
    /// Nobody does.
    Left { until: Instant },
    /// It was taken to its end.
    Ended { until: Instant },
}

/// A living stream.
#[derive(Debug)]
struct Stream {
    key: StreamKey,
    owner: Hash,
    /// The number of its next record.
    next: u64,
    /// Bytes of all its records.
    bytes: u64,
    /// Bytes of its head.
    head_bytes: u64,
    /// The logs that have some.
    logs: BTreeSet<u64>,
    stand: Stand,
    /// The newest seat, and its holder's notice.
    nth: u64,
    taken: watch::Sender<bool>,
}

/// What is to be written in this round.
#[derive(Debug, Default)]
struct Round {
    bytes: Vec<u8>,
    waiting: Vec<(StreamId, Answer<()>)>,
}

/// The owner of the files.
#[derive(Debug)]
pub(super) struct Keeper {
    files: Files,
    secret: Secret,
    limits: Limits,
    streams: HashMap<StreamId, Stream>,
    seats: u64,
    figures: Arc<Mutex<Figures>>,
}

impl Keeper {
    /// Opens a directory and finds what is still alive in it.
    pub(super) fn open(
        dir: &Path,
        secret: &Secret,
        limits: Limits,
        figures: Arc<Mutex<Figures>>,
    ) -> Result<Self, JournalError> {
        let mut keeper = Self {
            files: Files::open(dir)?,
            secret: secret.clone(),
            limits,
            streams: HashMap::new(),
            seats: 0,
            figures,
        };
        for stream in keeper.files.heads()? {
            match keeper.read_start(stream) {
                Ok((start, key, bytes)) => {
                    let found = keeper.stream(key, start.owner, bytes);
                    keeper.streams.insert(stream, found);
                }
                Err(error) => {
                    tracing::warn!(%error, "the journal of an answer cannot be read and is removed");
                    keeper.files.remove_head(stream);
                }
            }
        }
        for log in keeper.files.logs() {
            keeper.find_records(log)?;
        }
        keeper.bury_the_old();
        Ok(keeper)
    }

    fn stream(&self, key: StreamKey, owner: Hash, head_bytes: u64) -> Stream {
        let until = Instant::now() + self.limits.life;
        Stream {
            key,
            owner,
            next: 1,
            bytes: head_bytes,
            head_bytes,
            logs: BTreeSet::new(),
            stand: Stand::Left { until },
            nth: 0,
            taken: watch::Sender::new(false),
        }
    }

    /// Counts the records of a log whose streams live. One that does not follow its predecessor is not there.
    fn find_records(&mut self, log: u64) -> Result<(), JournalError> {
        let bytes = self.files.read_log(log)?;
        for record in Frames::of(&bytes) {
            let framed = record.frame().len() as u64;
            if let Some(stream) = self.streams.get_mut(&record.stream)
                && record.number == stream.next
            {
                stream.next += 1;
                stream.bytes += framed;
                stream.logs.insert(log);
            }
        }
        Ok(())
    }

    /// What is left of each stream's life, from when it was last written to.
    fn bury_the_old(&mut self) {
        for (id, stream) in &mut self.streams {
            let age = self.files.age(*id, stream.logs.last().copied());
            let until = Instant::now() + self.limits.life.saturating_sub(age);
            stream.stand = Stand::Left { until };
        }
        self.look(Instant::now());
    }

    fn read_start(&self, stream: StreamId) -> Result<(StreamStart, StreamKey, u64), JournalError> {
        let bytes = self.files.read_head(stream)?;
        let head = Frames::of(&bytes).next().ok_or(JournalError::Damaged)?;
        let salt = head.salt.ok_or(JournalError::Damaged)?;
        let key = StreamKey::derive(&self.secret, &salt);
        if (head.stream, head.number) != (stream, 0) {
            return Err(JournalError::Damaged);
        }
        let plain = key.open(head).ok_or(JournalError::Damaged)?;
        let start = codec::from_slice(&plain).map_err(|_| JournalError::Damaged)?;
        Ok((start, key, bytes.len() as u64))
    }

    /// Carries out orders until nobody can give any more.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let first = match self.streams.is_empty() {
                true => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => orders.recv_timeout(LOOK),
            };
            match first {
                Ok(order) => self.round(order, orders),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look(Instant::now());
        }
    }

    /// Carries out an order and those that wait behind it; what they append is made durable at once.
    fn round(&mut self, first: Order, orders: &Receiver<Order>) {
        let mut round = Round::default();
        let waiting = orders.try_iter().take(ROUND_ORDERS_MAX);
        for order in std::iter::once(first).chain(waiting) {
            if let Order::Append {
                stream,
                nth,
                plain,
                done,
            } = order
            {
                match self.seal(stream, nth, plain) {
                    Ok(frame) => {
                        round.bytes.extend(frame);
                        round.waiting.push((stream, done));
                    }
                    // Nobody who has gone needs to know.
                    Err(error) => drop(done.send(Err(error))),
                }
                continue;
            }
            // What was appended before is part of what comes now.
            self.write(std::mem::take(&mut round));
            match order {
                Order::Begin(start, done) => {
                    let begun = self.begin(&start);
                    if let Err(error) = &begun {
                        self.without(&error.to_string());
                    }
                    drop(done.send(begun));
                }
                Order::Resume(stream, owner, done) => drop(done.send(self.resume(stream, owner))),
                Order::End(stream, nth) => self.end(stream, nth),
                Order::Append { .. } => {}
            }
        }
        self.write(round);
    }

    fn begin(&mut self, start: &StreamStart) -> Result<Seat, JournalError> {
        let plain = codec::to_vec(start);
        let bytes = plain.len() as u64;
        if bytes > self.limits.stream_bytes_max / 2 {
            return Err(JournalError::Full("the request is too large for a journal"));
        }
        self.look(Instant::now());
        while self.streams.len() >= self.limits.streams_max
            || self.bytes() + bytes > self.limits.bytes_max
        {
            self.make_room()?;
        }
        let (stream, salt) = (StreamId(random()), random::<SALT_BYTES>());
        let key = StreamKey::derive(&self.secret, &salt);
        let mut head = key.seal(stream, 0, plain);
        head.salt = Some(salt);
        let frame = head.frame();
        if let Err(error) = self.files.write_head(stream, &frame) {
            self.files.remove_head(stream);
            return Err(error.into());
        }
        let mut begun = self.stream(key, start.owner, frame.len() as u64);
        let seat = Self::seat(&mut self.seats, stream, &mut begun);
        self.streams.insert(stream, begun);
        Ok(seat)
    }

    /// A new seat; whoever had one before is told.
    fn seat(seats: &mut u64, id: StreamId, stream: &mut Stream) -> Seat {
        *seats += 1;
        let (taken, notice) = watch::channel(false);
        stream.taken.send_replace(true);
        (stream.taken, stream.nth, stream.stand) = (taken, *seats, Stand::Held);
        Seat {
            stream: id,
            nth: *seats,
            taken: notice,
        }
    }

    fn seal(&mut self, id: StreamId, nth: u64, plain: Vec<u8>) -> Result<Vec<u8>, JournalError> {
        let stream = self.streams.get_mut(&id).ok_or(JournalError::Unknown)?;
        if stream.nth != nth {
            return Err(JournalError::Taken);
        }
        let frame = stream.key.seal(id, stream.next, plain).frame();
        let bytes = frame.len() as u64;
        if stream.bytes + bytes > self.limits.stream_bytes_max {
            return Err(self.give_up(id, "the answer is too long for a journal"));
        }
        (stream.next, stream.bytes) = (stream.next + 1, stream.bytes + bytes);
        while self.bytes() + bytes > self.limits.bytes_max {
            if self.make_room().is_err() {
                return Err(self.give_up(id, "all journals together are too large"));
            }
        }
        Ok(frame)
    }

    /// Writes a round, and answers all who wait for it.
    fn write(&mut self, round: Round) {
        if round.waiting.is_empty() {
            return;
        }
        match self.files.append(&round.bytes, self.limits.log_bytes) {
            Ok(log) => {
                for (id, done) in round.waiting {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.logs.insert(log);
                    }
                    drop(done.send(Ok(())));
                }
            }
            Err(error) => {
                let why = error.to_string();
                for (id, done) in round.waiting {
                    if self.streams.contains_key(&id) {
                        self.without(&why);
                        self.remove(id);
                    }
                    drop(done.send(Err(JournalError::Unknown)));
                }
            }
        }
    }

    fn resume(
        &mut self,
        id: StreamId,
        owner: Hash,
    ) -> Result<(StreamStart, Vec<StreamBatch>, Seat), JournalError> {
        self.look(Instant::now());
        let yours = |stream: &&Stream| stream.owner == owner;
        let stream = self.streams.get(&id).filter(yours);
        let logs = stream.ok_or(JournalError::Unknown)?.logs.clone();
        let (start, ..) = self.read_start(id)?;
        let mut batches = Vec::new();
        for log in logs {
            let bytes = self.files.read_log(log)?;
            let stream = &self.streams[&id];
            for record in Frames::of(&bytes).filter(|record| record.stream == id) {
                if record.number != batches.len() as u64 + 1 {
                    continue;
                }
                let plain = stream.key.open(record).ok_or(JournalError::Damaged)?;
                batches.push(codec::from_slice(&plain).map_err(|_| JournalError::Damaged)?);
            }
        }
        let stream = self.streams.get_mut(&id).ok_or(JournalError::Unknown)?;
        if batches.len() as u64 + 1 != stream.next {
            return Err(JournalError::Damaged);
        }
        let seat = Self::seat(&mut self.seats, id, stream);
        Ok((start, batches, seat))
    }

    fn end(&mut self, id: StreamId, nth: u64) {
        let until = Instant::now() + self.limits.linger;
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.nth == nth
        {
            stream.stand = Stand::Ended { until };
        }
    }

    /// Finds who has gone, and removes what is over.
    fn look(&mut self, now: Instant) {
        let until = now + self.limits.life;
        for stream in self.streams.values_mut() {
            if stream.stand == Stand::Held && stream.taken.is_closed() {
                stream.stand = Stand::Left { until };
            }
        }
        let over = |stream: &Stream| match stream.stand {
            Stand::Held => false,
            Stand::Left { until } | Stand::Ended { until } => until <= now,
        };
        let streams = self.streams.iter().filter(|(_, stream)| over(stream));
        let over: Vec<StreamId> = streams.map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.remove(id));
        self.release();
        let (streams, bytes) = (self.streams.len(), self.bytes());
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        (figures.streams, figures.bytes) = (streams, bytes);
    }

    /// Removes the stream that is missed least: the first to go of those that have ended, then of those that were left.
    fn make_room(&mut self) -> Result<(), JournalError> {
        let rank = |stream: &Stream| match stream.stand {
            Stand::Ended { until } => Some((0, until)),
            Stand::Left { until } => Some((1, until)),
            Stand::Held => None,
        };
        let ranked = self
            .streams
            .iter()
            .filter_map(|(id, stream)| Some((rank(stream)?, *id)));
        let (_, id) = ranked.min().ok_or(JournalError::Full(
            "as many answers have a journal as may have one",
        ))?;
        self.remove(id);
        self.release();
        Ok(())
    }

    /// The journal of a stream ends, and the answer goes on without.
    fn give_up(&mut self, id: StreamId, why: &'static str) -> JournalError {
        self.without(why);
        self.remove(id);
        JournalError::Full(why)
    }

    fn without(&self, why: &str) {
        tracing::warn!(
            why,
            "an answer goes on without a journal: it cannot be resumed"
        );
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.without += 1;
        figures.why = Some(why.to_owned());
    }

    fn remove(&mut self, id: StreamId) {
        self.files.remove_head(id);
        self.streams.remove(&id);
    }

    fn release(&mut self) {
        let in_use = self.streams.values().flat_map(|stream| &stream.logs);
        self.files.release(&in_use.copied().collect());
    }

    fn bytes(&self) -> u64 {
        let heads = self.streams.values().map(|stream| stream.head_bytes);
        heads.sum::<u64>() + self.files.log_bytes()
    }
}
