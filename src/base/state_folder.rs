//! The folder in which this host remembers something between processes.

use std::path::PathBuf;

/// $STATE_DIRECTORY (systemd's StateDirectory=), $XDG_STATE_HOME/pgtend or ~/.local/state/pgtend. It may not exist yet.
pub fn find() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("STATE_DIRECTORY")
        // systemd separates several folders by colons.
        .and_then(|all| std::env::split_paths(&all).next())
        .or_else(|| variable("XDG_STATE_HOME").map(|folder| folder.join("pgtend")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/state/pgtend")))
}
