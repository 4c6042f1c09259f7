//! What a request asks of ControlNets, T2I-Adapters and ControlNet-LLLites, against those that are loaded.

use super::request::{Control, ControlMode};
use crate::error::{Error, Result};
use crate::named::Named;

/// How a control file acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum How {
    /// A ControlNet or a Control-LoRA, beside the UNet.
    #[default]
    Net,
    /// Its features are added inside the UNet.
    Adapter,
    /// Inside the UNet.
    Lllite,
}

/// A control file that is loaded.
#[derive(Clone, Default)]
pub(super) struct ControlFacts {
    pub key: String,
    /// It pools its conditions, so it asks for guess mode.
    pub guesses: bool,
    /// Kinds of pictures of a ControlNet Union.
    pub modes: Option<u32>,
    pub how: How,
    /// What the picture's sides are multiples of, where that is not all that the model takes.
    pub unit: Option<u32>,
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

/// # Errors
/// `invalid-option` for a width and a height that a request's T2I-Adapters or ControlNet-LLLites do not take.
pub(super) fn check_size(
    controls: &[Control],
    loaded: &[ControlFacts],
    [width, height]: [u32; 2],
) -> Result<()> {
    for own in loaded.iter().filter(|own| controls.iter().any(|control| control.key == own.key)) {
        let Some(unit) = own.unit else { continue };
        if !width.is_multiple_of(unit) || !height.is_multiple_of(unit) {
            let what = if own.how == How::Lllite { "ControlNet-LLLite" } else { "T2I-Adapter" };
            return Err(Error::invalid(format!(
                "The {what} of controlnets takes sides that are multiples of {unit}, not {width}x{height}: \
                 choose such a width and height."
            )));
        }
    }
    Ok(())
}

/// The T2I-Adapters of a request, its ControlNet-LLLites, and its ControlNets.
pub(super) fn parted(controls: Vec<Control>, loaded: &[ControlFacts]) -> [Vec<Control>; 3] {
    let is = |control: &Control, how| loaded.iter().any(|own| own.key == control.key && own.how == how);
    let (adapters, others) = controls.into_iter().partition(|control| is(control, How::Adapter));
    let others: Vec<Control> = others;
    let (lllites, nets) = others.into_iter().partition(|control| is(control, How::Lllite));
    [adapters, lllites, nets]
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

#[cfg(test)]
mod tests {
    use super::{ControlFacts, How, check_size, parted};
    use crate::pipeline::Control;

    #[test]
    fn a_control_file_says_which_sides_it_takes() {
        let facts = |key: &str, how, unit| ControlFacts { key: key.into(), how, unit, ..Default::default() };
        let loaded = [
            facts("sketch", How::Adapter, Some(16)),
            facts("canny", How::Net, None),
            facts("other", How::Adapter, Some(64)),
            facts("depth", How::Lllite, Some(32)),
        ];
        let asked = |keys: &[&str]| {
            keys.iter().map(|&key| Control { key: key.into(), ..Default::default() }).collect()
        };
        let all: Vec<_> = asked(&["canny", "depth", "sketch"]);
        assert!(check_size(&all, &loaded, [64, 1024]).is_ok());
        let wrong = |keys: &[&str], size| {
            let asked: Vec<_> = asked(keys);
            check_size(&asked, &loaded, size).unwrap_err().message
        };
        let message = wrong(&["canny", "sketch"], [1024, 24]);
        assert!(message.contains(
            "T2I-Adapter of controlnets takes sides that are multiples of 16, not 1024x24: choose"
        ));
        let message = wrong(&["canny", "depth"], [1024, 48]);
        assert!(
            message
                .contains("LLLite of controlnets takes sides that are multiples of 32, not 1024x48: choose")
        );
        let [adapters, lllites, nets] = parted(all, &loaded);
        assert_eq!([&adapters[0].key, &lllites[0].key, &nets[0].key], ["sketch", "depth", "canny"]);
    }
}
