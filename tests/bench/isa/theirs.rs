//! onnxruntime-web 1.30 on the same measure: its kernels were taken from Chromium, unrolled as ours, compiled and put
//! into the same formula beside ours of commit 144046f.

/// Its time over ours of that commit: f32, and f16; attention fused. By family: RTX 3060, RTX 4090, M1, 7900 XTX, Adreno
/// 740.
type Ratios = [[f64; 2]; 5];

/// Of each operation, and what `model.rs` says of ours of that commit, ms.
pub const OPERATIONS: [(&str, Ratios, [f64; 5]); 12] = [
    (
        "conv 320@64",
        [[1.41, 1.14], [1.31, 1.09], [1.80, 1.55], [1.80, 1.64], [1.51, 1.26]],
        [2.0476, 0.3195, 9.7041, 0.4808, 21.0],
    ),
    (
        "conv 640@32",
        [[1.40, 1.10], [0.86, 0.70], [1.78, 1.56], [1.47, 1.39], [1.49, 1.27]],
        [2.1363, 0.4377, 9.5191, 0.5487, 21.8],
    ),
    (
        "conv 1280@16",
        [[1.52, 1.17], [0.60, 0.49], [1.67, 1.45], [1.03, 0.98], [1.39, 1.16]],
        [2.1363, 0.8695, 10.6, 0.764, 21.8],
    ),
    (
        "gemm 4096x320x320",
        [[1.29, 0.81], [1.24, 0.82], [1.34, 1.18], [1.53, 0.94], [1.49, 0.73]],
        [0.203, 0.0362, 0.974, 0.0488, 2.2615],
    ),
    (
        "gemm 4096x320x2560",
        [[1.33, 0.84], [1.51, 0.85], [1.37, 1.21], [1.64, 0.97], [1.52, 0.74]],
        [1.5733, 0.248, 7.6288, 0.3365, 17.9],
    ),
    (
        "gemm 1024x640x5120",
        [[1.33, 0.84], [1.47, 0.82], [1.36, 1.20], [1.58, 0.93], [1.52, 0.74]],
        [1.5818, 0.248, 7.6116, 0.3391, 17.9],
    ),
    (
        "self-attention d40",
        [[0.91, 0.71], [0.91, 0.68], [1.02, 0.76], [1.80, 1.56], [1.01, 0.64]],
        [8.1227, 1.3721, 38.1, 2.1423, 96.6],
    ),
    (
        "self-attention d80",
        [[1.00, 0.77], [1.06, 0.92], [0.70, 0.52], [1.94, 1.69], [1.04, 0.71]],
        [1.0757, 0.1571, 5.7997, 0.2856, 12.1],
    ),
    (
        "cross-attention",
        [[1.11, 0.88], [1.20, 0.97], [1.23, 0.92], [2.10, 1.90], [1.20, 0.78]],
        [0.1915, 0.0343, 0.8995, 0.0559, 2.2505],
    ),
    (
        "GroupNorm+SiLU",
        [[5.00, 2.80], [2.30, 1.30], [8.00, 4.00], [2.20, 1.30], [5.60, 3.00]],
        [0.0424, 0.0349, 0.1602, 0.0454, 0.3236],
    ),
    (
        "LayerNorm",
        [[2.80, 1.40], [2.50, 1.40], [2.90, 1.50], [2.50, 1.40], [2.80, 1.50]],
        [0.0351, 0.0164, 0.1602, 0.0169, 0.3433],
    ),
    (
        "step",
        [[1.27, 0.93], [0.96, 0.73], [1.45, 1.23], [1.39, 1.17], [1.33, 0.91]],
        [244.7, 66.1, 1155.9, 74.8, 2670.6],
    ),
];

/// Of an operation on a family: ours of that commit, theirs in f32 and in f16, ms. Of a family that was not compared:
/// `None`.
pub fn of(operation: &str, family: &str) -> Option<[f64; 3]> {
    let place =
        ["RTX 3060", "RTX 4090", "M1", "7900 XTX", "Adreno 740"].iter().position(|name| *name == family)?;
    let (_, ratios, before) = OPERATIONS.iter().find(|(name, ..)| *name == operation)?;
    let ([f32, f16], before) = (ratios[place], before[place]);
    Some([before, f32 * before, f16 * before])
}
