//! Outputs that are kept after they were sent, so that they can be sent again.
//!
//! Records lie end to end in order of position; the oldest go first, by acknowledgement or for lack of room. Before that they leave
//! memory, where somebody keeps them elsewhere ([`crate::spill`]). What cannot be read there any more is forgotten, with all before it.

use crate::frame::{frame_rows, row_bytes};
use crate::spill::{Kept, Overflow};
use bytes::{Bytes, BytesMut};
use proto::ids::Hash;
use std::collections::VecDeque;

/// The output of one frame.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Position of the first row.
    pub(crate) position: u32,
    /// How many rows.
    pub(crate) rows: u32,
    /// BLAKE3 of the input it was computed from; `None` when that was a longer frame, cut since.
    pub(crate) input: Option<Hash>,
    /// Rows of guesses that the frame had besides, and whose place was taken.
    pub(crate) replaced: u32,
    /// The rows.
    pub(crate) output: Kept,
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
    /// Bytes in memory.
    here: usize,
    overflow: Option<Overflow>,
}

impl Retained {
    /// Nothing yet; what memory has no room for is put there.
    pub(crate) fn spilling(overflow: Option<Overflow>) -> Self {
        Self {
            overflow,
            ..Self::default()
        }
    }

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
        self.here += record.output.here();
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

    /// So many rows from `position` on, of all records that they lie in; else the end of one that cannot be read any more.
    ///
    /// # Panics
    ///
    /// When one of them is not kept.
    pub(crate) fn rows(
        &self,
        position: u32,
        rows: u32,
        embedding_length: u32,
    ) -> Result<Bytes, u32> {
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
            let output = record.output.read().ok_or(record.end())?;
            all.extend_from_slice(&output[at(from)..at(to)]);
        }
        assert_eq!(all.len(), rows as usize * bytes, "rows are kept");
        Ok(all.freeze())
    }

    /// The rows from `from` up to `until` in frames of the grid: position, rows and payload of each. Fails as [`Self::rows`].
    ///
    /// # Panics
    ///
    /// When one of them is not kept.
    pub(crate) fn frames(
        &self,
        from: u32,
        until: u32,
        embedding_length: u32,
    ) -> Result<Vec<(u32, u32, Bytes)>, u32> {
        let grid = frame_rows(embedding_length);
        let (mut at, mut frames) = (from, Vec::new());
        while at < until {
            let end = (at + grid - at % grid).min(until);
            let rows = end - at;
            frames.push((at, rows, self.rows(at, rows, embedding_length)?));
            at = end;
        }
        Ok(frames)
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

    /// Forgets the oldest records, as long as more than `bytes_max` are kept, but none that ends behind `keep`. Before, the oldest
    /// ones leave memory, if they can.
    pub(crate) fn shrink(&mut self, bytes_max: usize, keep: u32) {
        if let Some(overflow) = self.overflow.clone() {
            let newest = self.records.len().saturating_sub(1);
            let older = self.records.iter_mut().take(newest);
            for record in older.filter(|record| record.output.here() > 0) {
                let bytes = record.output.here();
                if self.here <= overflow.memory_bytes_max || !record.output.put(&*overflow.spill) {
                    break;
                }
                self.here -= bytes;
            }
        }
        while self.bytes > bytes_max && self.records.front().is_some_and(|r| r.end() <= keep) {
            self.pop_front();
        }
    }

    /// Forgets rows from `length` on, which lies in the newest record: others take their place. What was left of it is still known as
    /// that frame's.
    pub(crate) fn replace(&mut self, length: u32, embedding_length: u32) {
        let newest = self.records.back();
        let (rows, input) = newest.map_or((0, None), |r| (r.rows + r.replaced, r.input));
        self.cut(length, embedding_length);
        if let Some(record) = self.records.back_mut() {
            (record.replaced, record.input) = (rows.saturating_sub(record.rows), input);
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
            self.here -= record.output.here();
        }
        let across = |record: &Record| record.end() > length;
        if !self.records.back().is_some_and(across) {
            return;
        }
        let mut record = self.records.pop_back().expect("there is a newest record");
        self.bytes -= record.output.len();
        self.here -= record.output.here();
        let rows = length - record.position;
        let Some(mut output) = record.output.read() else {
            // Records end where the cache does, or there are none.
            return self.clear();
        };
        output.truncate(rows as usize * row_bytes(embedding_length));
        (record.rows, record.input, record.replaced) = (rows, None, 0);
        record.output = Kept::Here(output);
        self.push(record);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.records.clear();
        (self.bytes, self.here) = (0, 0);
    }

    fn pop_front(&mut self) {
        if let Some(record) = self.records.pop_front() {
            self.bytes -= record.output.len();
            self.here -= record.output.here();
        }
    }
}

#[cfg(test)]
mod tests;
