//! Which tensors share a buffer.

/// Size and first and last dispatch that touch a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    pub bytes: u64,
    /// `usize::MAX` for a tensor that no dispatch touches.
    pub first: usize,
    pub last: usize,
}

impl Lifetime {
    /// From run to run.
    pub fn kept(&self) -> bool {
        (self.first, self.last) == (0, usize::MAX)
    }
}

/// Tensors by buffer: two that are never alive together may share one. Of three ways, the one that takes least.
pub(super) fn pack(tensors: &[Lifetime]) -> Vec<Vec<usize>> {
    let total = |slots: &Vec<Vec<usize>>| slots.iter().map(|slot| bytes(tensors, slot)).sum::<u64>();
    let packed = [by_size(tensors), by_time(tensors, 4), by_time(tensors, 16)];
    packed.into_iter().min_by_key(total).unwrap_or_default()
}

/// Bytes of a buffer for these of `tensors`.
pub(super) fn bytes(tensors: &[Lifetime], tenants: &[usize]) -> u64 {
    tenants.iter().map(|&i| tensors[i].bytes).max().unwrap_or(0)
}

/// The tensors that are used.
fn used(tensors: &[Lifetime]) -> Vec<usize> {
    (0..tensors.len()).filter(|&i| tensors[i].first != usize::MAX).collect()
}

/// The largest tensor first, each into the first buffer whose tenants it never meets.
fn by_size(tensors: &[Lifetime]) -> Vec<Vec<usize>> {
    let mut order = used(tensors);
    order.sort_by_key(|&i| std::cmp::Reverse(tensors[i].bytes));
    let mut slots: Vec<Vec<usize>> = Vec::new();
    for i in order {
        let life = tensors[i];
        let meets = |&j: &usize| life.last >= tensors[j].first && tensors[j].last >= life.first;
        match slots.iter_mut().find(|tenants| !tenants.iter().any(meets)) {
            Some(slot) => slot.push(i),
            None => slots.push(vec![i]),
        }
    }
    slots
}

/// The earliest tensor first, each into the smallest free buffer that is large enough, or the largest, which grows;
/// but into none that is more than `wasteful` times as large, which something larger may need next.
fn by_time(tensors: &[Lifetime], wasteful: u64) -> Vec<Vec<usize>> {
    let mut order = used(tensors);
    order.sort_by_key(|&i| tensors[i].first);
    // With the bytes of each and the last dispatch that needs it.
    let mut slots: Vec<(u64, usize, Vec<usize>)> = Vec::new();
    for i in order {
        let life = tensors[i];
        let free =
            slots.iter_mut().filter(|(bytes, last, _)| *last < life.first && *bytes / wasteful <= life.bytes);
        let fit = free.min_by_key(|(bytes, ..)| {
            let grows = *bytes < life.bytes;
            (grows, if grows { life.bytes - *bytes } else { *bytes })
        });
        match fit {
            Some((bytes, last, tenants)) => {
                *bytes = life.bytes.max(*bytes);
                *last = life.last;
                tenants.push(i);
            }
            None => slots.push((life.bytes, life.last, vec![i])),
        }
    }
    slots.into_iter().map(|(.., tenants)| tenants).collect()
}
