//! The binary. All it does is hand over to [`node::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    node::cli::main()
}
