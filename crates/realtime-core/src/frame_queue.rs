//! [`FrameQueue`]: frames that wait for one socket, in order.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Frames that wait for one socket. They leave from the front, whole or in pieces.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct FrameQueue {
    // Fields that every frame needs come first.
    bytes: usize,
    frames: VecDeque<Bytes>,
    cut: bool,
}

/// A queue that grew beyond this is freed once it is empty; a smaller one by the next tick, so that consecutive
/// messages reuse it.
const KEEP_FRAMES: usize = 64;

// Inlined into the outbox's methods, which every frame goes through: otherwise a tenth of their time.
impl FrameQueue {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The number of frames, including the rest of a cut one.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// The number of bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns `true` if the first frame is the rest of a cut one: nothing else may be written before it.
    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// The frames, starting with the next one to leave.
    #[inline]
    pub(crate) fn frames(&self) -> &VecDeque<Bytes> {
        &self.frames
    }

    /// Appends a frame.
    #[inline]
    pub(crate) fn put(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// Queues the rest of a frame whose first `gone` bytes have bypassed the queue, which has no bytes.
    #[inline]
    pub(crate) fn put_rest(&mut self, frame: &Bytes, gone: usize) {
        self.cut = gone > 0;
        self.put(frame.slice(gone..));
    }

    /// Takes up to `max` bytes (at least 1) from the front: consecutive frames, or a piece of one.
    #[inline]
    pub(crate) fn take(&mut self, max: usize) -> Option<Bytes> {
        let first = self.frames.front_mut()?;
        let taken = if first.len() > max {
            self.cut = true;
            first.split_to(max)
        } else {
            self.cut = false;
            let mut together = first.len();
            let fits = |frame: &&Bytes| {
                together += frame.len();
                together <= max
            };
            match self.frames.iter().skip(1).take_while(fits).count() {
                0 => self.frames.pop_front()?,
                more => {
                    let mut joined = BytesMut::with_capacity(max.min(self.bytes));
                    self.frames.drain(..=more).for_each(|frame| joined.extend_from_slice(&frame));
                    joined.freeze()
                }
            }
        };
        self.bytes -= taken.len();
        Some(taken)
    }

    /// Removes bytes from the front, at most as many as there are.
    #[inline]
    pub(crate) fn advance(&mut self, mut count: usize) {
        if count == self.bytes {
            self.frames.clear();
            (self.bytes, self.cut) = (0, false);
            return;
        }
        self.bytes -= count;
        while let Some(front) = self.frames.front_mut() {
            if count < front.len() {
                self.cut |= count > 0;
                let _ = front.split_to(count);
                return;
            }
            count -= front.len();
            self.frames.pop_front();
            self.cut = false;
        }
    }

    /// Frees memory if the queue is empty and a burst made it large.
    #[inline]
    pub(crate) fn shrink(&mut self) {
        if self.frames.is_empty() && self.frames.capacity() > KEEP_FRAMES {
            self.free();
        }
    }

    /// Discards all frames and their memory. A cut frame stays cut, since its rest never leaves.
    pub(crate) fn free(&mut self) {
        self.frames = VecDeque::new();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Put(Vec<u8>),
        /// A frame of which that many bytes bypass the empty queue.
        PutRest(Vec<u8>, usize),
        Take(usize),
        /// Hundredths of the queued bytes.
        Advance(usize),
        Shrink,
    }

    fn step() -> impl Strategy<Value = Step> {
        let frame = || proptest::collection::vec(any::<u8>(), 1..12);
        prop_oneof![
            4 => frame().prop_map(Step::Put),
            1 => (frame(), 0..12_usize).prop_map(|(frame, gone)| Step::PutRest(frame, gone)),
            3 => (1..24_usize).prop_map(Step::Take),
            2 => (0..=100_usize).prop_map(Step::Advance),
            1 => Just(Step::Shrink),
        ]
    }

    proptest! {
        /// The model: the queued bytes, and which of them begin a frame.
        #[test]
        fn bytes_leave_in_order_and_a_cut_frame_is_known(steps in proptest::collection::vec(step(), 0..80)) {
            let mut queue = FrameQueue::default();
            let mut bytes: Vec<u8> = Vec::new();
            let mut begins: Vec<bool> = Vec::new();
            for step in steps {
                match step {
                    Step::Put(frame) => {
                        begins.extend((0..frame.len()).map(|index| index == 0));
                        bytes.extend(&frame);
                        queue.put(frame.into());
                    }
                    Step::PutRest(frame, gone) if bytes.is_empty() && gone < frame.len() => {
                        begins.extend((gone..frame.len()).map(|index| index == 0));
                        bytes.extend(&frame[gone..]);
                        queue.put_rest(&frame.into(), gone);
                    }
                    Step::PutRest(..) => {}
                    Step::Take(max) => {
                        let taken = queue.take(max);
                        prop_assert_eq!(taken.is_some(), !bytes.is_empty());
                        let taken = taken.unwrap_or_default();
                        prop_assert!(bytes.starts_with(&taken));
                        // As many whole frames as fit, or a piece of one.
                        let ends = (1..=bytes.len()).filter(|end| begins.get(*end).is_none_or(|begin| *begin));
                        let whole = ends.take_while(|end| *end <= max).last();
                        prop_assert_eq!(taken.len(), whole.unwrap_or(max.min(bytes.len())));
                        bytes.drain(..taken.len());
                        begins.drain(..taken.len());
                    }
                    Step::Advance(hundredths) => {
                        let count = bytes.len() * hundredths / 100;
                        queue.advance(count);
                        bytes.drain(..count);
                        begins.drain(..count);
                    }
                    Step::Shrink => queue.shrink(),
                }
                prop_assert_eq!(queue.frames().iter().flatten().copied().collect::<Vec<_>>(), bytes.clone());
                prop_assert_eq!((queue.bytes(), queue.is_empty()), (bytes.len(), bytes.is_empty()));
                prop_assert_eq!(queue.is_cut(), begins.first().is_some_and(|begin| !begin));
                let frames = begins.iter().enumerate().filter(|(index, begin)| *index == 0 || **begin);
                prop_assert_eq!(queue.len(), frames.count());
            }
        }
    }

    #[test]
    fn a_large_queue_is_given_back_when_it_is_empty() {
        let mut queue = FrameQueue::default();
        for _ in 0..=KEEP_FRAMES {
            queue.put(Bytes::from_static(b"x"));
        }
        queue.shrink();
        assert_eq!(queue.len(), KEEP_FRAMES + 1);
        queue.advance(KEEP_FRAMES + 1);
        assert!(queue.frames.capacity() > KEEP_FRAMES);
        queue.shrink();
        assert_eq!(queue.frames.capacity(), 0);
    }
}
