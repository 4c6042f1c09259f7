//! torch's CPU random generator, so that a seed gives the noise that it gives in PyTorch.

/// `torch.Generator("cpu").manual_seed(seed)`: a Mersenne Twister whose state goes on from call to call.
#[derive(Clone)]
pub struct Generator {}

impl Generator {
    /// A generator as `manual_seed` leaves it. torch uses the low 32 bits of the seed.
    pub fn new(_seed: u64) -> Self {
        Self {}
    }

    /// `torch.randn`: fills `out` with standard normal values, in the order of a contiguous tensor.
    pub fn randn(&mut self, _out: &mut [f32]) {
        todo!("not written yet")
    }
}
