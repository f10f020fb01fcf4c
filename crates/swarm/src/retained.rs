//! Outputs that are kept after they were sent, so that they can be sent again.
//!
//! Records lie end to end in order of position; the oldest go first, by acknowledgement or for lack of room.

use crate::frame::{frame_rows, row_bytes};
use bytes::{Bytes, BytesMut};
use proto::ids::Hash;
use std::collections::VecDeque;

/// The output of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Position of the first row.
    pub(crate) position: u32,
    /// How many rows.
    pub(crate) rows: u32,
    /// BLAKE3 of the input it was computed from; `None` when that was a longer frame, cut since.
    pub(crate) input: Option<Hash>,
    /// The rows.
    pub(crate) output: Bytes,
}

impl Record {
    pub(crate) fn end(&self) -> u32 {
        self.position + self.rows
    }
}

/// Consecutive records.
#[derive(Debug, Clone, Default)]
pub(crate) struct Retained {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Retained {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first position whose output is here, if any is.
    pub(crate) fn from(&self) -> Option<u32> {
        self.records.front().map(|record| record.position)
    }

    /// Appends; the record begins where the newest one ends.
    pub(crate) fn push(&mut self, record: Record) {
        debug_assert!(
            self.records
                .back()
                .is_none_or(|last| last.end() == record.position)
        );
        self.bytes += record.output.len();
        self.records.push_back(record);
    }

    /// The record that begins at `position`.
    pub(crate) fn find(&self, position: u32) -> Option<&Record> {
        let at = self
            .records
            .binary_search_by_key(&position, |record| record.position)
            .ok()?;
        self.records.get(at)
    }

    /// The record that `position` lies in.
    pub(crate) fn around(&self, position: u32) -> Option<&Record> {
        let after = self
            .records
            .partition_point(|record| record.position <= position);
        let record = self.records.get(after.checked_sub(1)?)?;
        (position < record.end()).then_some(record)
    }

    /// The record that ends at `end`, which is the newest one or none.
    pub(crate) fn ending_at(&self, end: u32) -> Option<&Record> {
        self.records.back().filter(|record| record.end() == end)
    }

    /// So many rows from `position` on, of all records that they lie in.
    ///
    /// # Panics
    ///
    /// When one of them is not here.
    pub(crate) fn rows(&self, position: u32, rows: u32, embedding_length: u32) -> Bytes {
        let (end, bytes) = (position + rows, row_bytes(embedding_length));
        let first = self
            .records
            .partition_point(|record| record.end() <= position);
        let mut all = BytesMut::with_capacity(rows as usize * bytes);
        for record in self.records.range(first..) {
            let (from, to) = (
                position.max(record.position),
                end.min(record.position + record.rows),
            );
            if from >= to {
                break;
            }
            let at = |row: u32| (row - record.position) as usize * bytes;
            all.extend_from_slice(&record.output[at(from)..at(to)]);
        }
        assert_eq!(all.len(), rows as usize * bytes, "rows are kept");
        all.freeze()
    }

    /// The rows from `from` up to `until` in frames of the grid: position, rows and payload of each.
    ///
    /// # Panics
    ///
    /// When one of them is not here.
    pub(crate) fn frames(
        &self,
        from: u32,
        until: u32,
        embedding_length: u32,
    ) -> Vec<(u32, u32, Bytes)> {
        let grid = frame_rows(embedding_length);
        let (mut at, mut frames) = (from, Vec::new());
        while at < until {
            let end = (at + grid - at % grid).min(until);
            let rows = end - at;
            frames.push((at, rows, self.rows(at, rows, embedding_length)));
            at = end;
        }
        frames
    }

    /// Forgets records that end at or before `position`.
    pub(crate) fn forget_below(&mut self, position: u32) {
        while self
            .records
            .front()
            .is_some_and(|record| record.end() <= position)
        {
            self.pop_front();
        }
    }

    /// Forgets the oldest records, as long as more than `bytes_max` are kept, but none that ends behind `keep`.
    pub(crate) fn shrink(&mut self, bytes_max: usize, keep: u32) {
        while self.bytes > bytes_max && self.records.front().is_some_and(|r| r.end() <= keep) {
            self.pop_front();
        }
    }

    /// Forgets rows from `length` on; a record across it loses its later rows.
    pub(crate) fn cut(&mut self, length: u32, embedding_length: u32) {
        while self
            .records
            .back()
            .is_some_and(|record| record.position >= length)
        {
            let record = self.records.pop_back().expect("there is a newest record");
            self.bytes -= record.output.len();
        }
        if let Some(record) = self
            .records
            .back_mut()
            .filter(|record| record.end() > length)
        {
            self.bytes -= record.output.len();
            record.rows = length - record.position;
            record
                .output
                .truncate(record.rows as usize * row_bytes(embedding_length));
            record.input = None;
            self.bytes += record.output.len();
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }

    fn pop_front(&mut self) {
        if let Some(record) = self.records.pop_front() {
            self.bytes -= record.output.len();
        }
    }
}

#[cfg(test)]
mod tests;
