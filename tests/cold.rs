//! What a first picture of the embedded model compiles on a software adapter, counted in its text: what its compilers
//! take long for is every read and write of memory that the text has written out, each a loop over lanes there.

use browser_diffusion::gpu::choices::shipped;
use browser_diffusion::gpu::{Dtype, Kernel, Options, Plan, Recorder};
use browser_diffusion::models::{clip, unet, vae};
use serde_json::Value;
use std::collections::BTreeSet;

fn config(part: &str) -> Value {
    let path = format!("{}/www/embedded/{part}/config.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn plan(options: &Options, build: impl FnOnce(&mut Recorder)) -> Plan {
    let mut r = Recorder::new(options);
    build(&mut r);
    r.finish()
}

/// Text encoder, UNet with guidance and decoder, as a pipeline records them.
fn kernels(options: &Options) -> BTreeSet<Kernel> {
    let text = plan(&Options { activations: Dtype::F32, ..*options }, |r| {
        let config = clip::Config::from_config(&config("text_encoder")).unwrap();
        let ids = r.input_u32(2, 77);
        let states = clip::hidden_states(&config, r, ids, None, config.num_hidden_layers).unwrap();
        clip::final_layer_norm(&config, r, *states.last().unwrap()).unwrap();
    });
    let unet = plan(options, |r| {
        let config = unet::Config::from_config(&config("unet")).unwrap();
        let inputs = unet::unet_inputs(&config, r, 2, 16, 16, 77);
        unet::forward(&config, r, &inputs, &[]).unwrap();
    });
    let decoder = plan(options, |r| {
        let config = vae::Config::from_config(&config("vae")).unwrap();
        let latents = r.input(1, 16, 16, config.latent_channels);
        vae::decode(&config, r, latents).unwrap();
    });
    let plans = [text, unet, decoder];
    let dispatches = plans.iter().flat_map(|plan| plan.setup().iter().chain(plan.dispatches()));
    dispatches.map(|dispatch| dispatch.kernel.clone()).collect()
}

/// Whether a compiler knows how often the loop that this line opens is run, and may write it out: nothing but its own
/// variable and constants is named.
fn may_be_written_out(line: &str) -> bool {
    let Some(head) = line.strip_prefix("for (var ") else { return false };
    let words = head.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').filter(|w| !w.is_empty());
    let mut words = words.skip_while(|word| *word == "var");
    let own = words.next();
    let constant = |word: &str| !word.contains(|c: char| c.is_ascii_lowercase()) || word.ends_with('u');
    words.all(|word| Some(word) == own || constant(word))
}

/// Subscripts in the text of `main` but those by numbers alone, which name a register; in a loop that may be written
/// out eightfold: what most of such loops repeat.
fn accesses(text: &str) -> usize {
    let main = &text[text.find("@compute").unwrap()..];
    let (mut times, mut all) = (vec![1], 0);
    for line in main.lines() {
        let inside = if may_be_written_out(line) { 8 } else { 1 };
        for (at, c) in line.char_indices() {
            match c {
                '{' => times.push(inside * times.last().unwrap()),
                '}' => drop(times.pop()),
                '[' if !is_number(&line[at + 1..]) => all += times.last().unwrap(),
                _ => {}
            }
        }
    }
    all
}

/// Whether the subscript that begins here is a number, or a sum or product of numbers.
fn is_number(rest: &str) -> bool {
    let within = rest.split(']').next().unwrap_or("");
    within.chars().all(|c| c.is_ascii_digit() || "u +*".contains(c))
}

/// (pipelines, bytes of their text, accesses, most accesses of one)
fn counted(options: &Options) -> [usize; 4] {
    let texts: Vec<String> =
        kernels(options).iter().map(|kernel| kernel.wgsl(options.subgroup > 0).unwrap()).collect();
    let accesses: Vec<usize> = texts.iter().map(|text| accesses(text)).collect();
    let bytes = texts.iter().map(String::len).sum();
    [texts.len(), bytes, accesses.iter().sum(), accesses.iter().copied().max().unwrap()]
}

/// Without subgroups 3,939 accesses take lavapipe 21 s of a processor's time natively, and the 23,480 that GPUs get
/// written out 106 s.
#[test]
fn a_first_picture_on_a_software_adapter_compiles_little() {
    for (subgroup, most) in [(0, [34, 355_000, 4_000, 780]), (8, [30, 285_000, 1_060, 630])] {
        let options = Options { subgroup, choices: shipped("mesa", ""), rolled: true, ..Options::default() };
        let counted = counted(&options);
        let written = self::counted(&Options { rolled: false, ..options });
        println!("subgroups of {subgroup}: {counted:?}, as GPUs get them {written:?}");
        for (counted, most) in counted.into_iter().zip(most) {
            assert!(counted <= most, "subgroups of {subgroup}: {counted} > {most}");
        }
        assert!(written[2] > 2 * counted[2], "what is written out is seen");
    }
}
