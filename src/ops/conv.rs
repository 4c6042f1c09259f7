//! Shapes of convolutions.

/// Shape of a convolution; weights are OIHW in the checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// 1 or 3; 2 or 4 of one that cuts into squares.
    pub kernel: u32,
    pub stride: u32,
    /// Rows or columns of zeros: top, left, bottom, right.
    pub pad: [u32; 4],
    /// Nearest-neighbour upsampling of the input to this height and width first; twice the input's, or one less.
    pub upsample: Option<[u32; 2]>,
    /// It adds `{name}.bias`.
    pub bias: bool,
}

impl Conv {
    /// 1x1.
    pub fn k1() -> Self {
        Self { kernel: 1, stride: 1, pad: [0; 4], upsample: None, bias: true }
    }
    /// 3x3, same size.
    pub fn k3() -> Self {
        Self { kernel: 3, stride: 1, pad: [1; 4], upsample: None, bias: true }
    }
    /// 3x3, stride 2, one row of zeros all around (the UNet).
    pub fn down() -> Self {
        Self { stride: 2, ..Self::k3() }
    }
    /// 3x3, stride 2, zeros at the bottom and right only (the VAE).
    pub fn down_asymmetric() -> Self {
        Self { stride: 2, pad: [0, 0, 1, 1], ..Self::k3() }
    }
    /// Of squares that lie side by side, so many positions a side.
    pub fn squares(side: u32) -> Self {
        Self { kernel: side, stride: side, pad: [0; 4], ..Self::k1() }
    }
    /// 3x3 over the input upsampled to `h` x `w`.
    pub fn up_to(h: u32, w: u32) -> Self {
        Self { upsample: Some([h, w]), ..Self::k3() }
    }

    /// Weights of one input channel for one output channel.
    pub(super) fn taps(&self) -> u32 {
        self.kernel * self.kernel
    }

    /// Whether the input is another at each tap, or moves: not so for a plain product.
    pub(super) fn gathers(&self) -> bool {
        self.kernel > 1 || self.stride > 1 || self.upsample.is_some()
    }
}
