//! What a request asks of ControlNets, against those that are loaded.

use super::request::{Control, ControlMode};
use crate::error::{Error, Result};
use crate::named::Named;

/// A ControlNet that is loaded.
pub(super) struct ControlFacts {
    pub key: String,
    /// It pools its conditions, so it asks for guess mode.
    pub guesses: bool,
    /// Kinds of pictures of a ControlNet Union.
    pub modes: Option<u32>,
}

/// # Errors
/// `invalid-option` naming what is wrong with a request's ControlNets.
pub(super) fn check(controls: &[Control], loaded: &[ControlFacts]) -> Result<()> {
    for control in controls {
        let Some(own) = loaded.iter().find(|own| own.key == control.key) else {
            return Err(Error::invalid(format!("ControlNet {} was not loaded.", control.key)));
        };
        check_mode(control, own.modes)?;
        control.image.check("image of controlnets")?;
        if !control.scale.is_finite() {
            return Err(Error::invalid("scale of controlnets must be a number, such as 1."));
        }
        let (start, end) = (control.start, control.end);
        if !(0.0 <= start && start < end && end <= 1.0) {
            return Err(Error::invalid(format!(
                "A ControlNet from start = {start} to end = {end}: choose shares of the steps from 0 to 1, \
                 the start before the end."
            )));
        }
    }
    Ok(())
}

/// # Errors
/// `invalid-option` where a ControlNet Union is not told what it sees, or another ControlNet is.
fn check_mode(control: &Control, modes: Option<u32>) -> Result<()> {
    let Some(modes) = modes else {
        return match control.mode {
            None => Ok(()),
            Some(mode) => Err(Error::invalid(format!(
                "mode \"{}\" of controlnets is for a ControlNet Union, which this one is not: leave mode out.",
                mode.name()
            ))),
        };
    };
    let known = |&&(_, mode): &&(&str, ControlMode)| (mode as u32) < modes;
    match control.mode {
        Some(mode) if (mode as u32) < modes => Ok(()),
        _ => {
            let names: Vec<_> = ControlMode::NAMES.iter().filter(known).map(|(name, _)| *name).collect();
            Err(Error::invalid(format!(
                "A ControlNet Union must be told what it sees. Choose a mode of controlnets: {}.",
                names.join(", ")
            )))
        }
    }
}

/// A ControlNet Union sees at once what it is asked to see during the same steps; other ControlNets see one picture.
pub(super) fn seen_at_once(controls: Vec<Control>, loaded: &[ControlFacts]) -> Vec<Vec<Control>> {
    let mut groups: Vec<Vec<Control>> = Vec::new();
    for control in controls {
        let union = loaded.iter().any(|own| own.key == control.key && own.modes.is_some());
        let fits = |group: &&mut Vec<Control>| {
            let same = |c: &Control| (&c.key, c.start, c.end) == (&control.key, control.start, control.end);
            union && group.first().is_some_and(same)
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.push(control),
            None => groups.push(vec![control]),
        }
    }
    groups
}
