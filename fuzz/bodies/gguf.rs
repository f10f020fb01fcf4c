//! What must hold for any bytes that claim to be a GGUF file.

use proto::gguf::{Header, Piece, StagePlan, plan};
use proto::host::Role;
use proto::model::LayerRange;

/// The largest stage that is composed in memory, in bytes.
const STAGE_BYTES_MAX: u64 = 4 << 20;

/// Panics when something does not hold. Files that are refused are fine.
pub(crate) fn run(file: &[u8]) {
    let Ok(header) = Header::from_bytes(file) else {
        return;
    };
    writes_back(file, &header);
    let layers = header.layers();
    for (role, first, end) in [
        (Role::Head, 0, 1),
        (Role::Head, 0, layers.saturating_sub(1)),
        (Role::Middle, 1, layers.saturating_sub(1)),
        (Role::Middle, layers / 2, layers / 2 + 1),
        (Role::Tail, 1, layers),
        (Role::Tail, layers.saturating_sub(1), layers),
        (Role::Whole, 0, layers),
        (Role::Middle, layers, u32::MAX),
    ] {
        if let Ok(plan) = plan(&header, role, LayerRange { first, end }) {
            reads_back(file, &header, &plan);
        }
    }
}

/// What was read is written again byte for byte, up to the padding.
fn writes_back(file: &[u8], header: &Header) {
    let encoded = header.encode();
    let end = encoded.len().min(file.len());
    let padding = header.alignment() as usize;
    let certain = end.saturating_sub(padding);
    assert_eq!(encoded[..certain], file[..certain]);
    let mut rebuilt = encoded;
    rebuilt.extend(
        file.get(header.data_offset() as usize..)
            .unwrap_or_default(),
    );
    let again = Header::from_bytes(&rebuilt).expect("a file that was read is read again");
    assert_eq!(again.encode(), header.encode());
}

/// A stage is a file that the reader takes, with the layers asked for.
fn reads_back(file: &[u8], header: &Header, plan: &StagePlan) {
    let pieces: u64 = plan.pieces.iter().map(Piece::bytes).sum();
    assert_eq!(plan.header.len() as u64 + pieces, plan.bytes);
    if plan.bytes > STAGE_BYTES_MAX {
        return;
    }
    let mut stage = plan.header.clone();
    for piece in &plan.pieces {
        match piece {
            Piece::Copy { offset, bytes } => {
                stage.extend(&file[*offset as usize..(*offset + *bytes) as usize]);
            }
            Piece::Literal(bytes) => stage.extend(bytes),
            Piece::Zeros(bytes) => stage.resize(stage.len() + *bytes as usize, 0),
        }
    }
    let read = Header::from_bytes(&stage).expect("a stage is a valid file");
    assert_eq!(read.layers(), plan.layers.len());
    assert_eq!(read.architecture(), header.architecture());
}
