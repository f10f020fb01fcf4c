//! Whole engine-hosts, sealed as always, kept by a supervisor as in a node.

use crate::Test;

pub(crate) const TESTS: &[Test] = &[];
