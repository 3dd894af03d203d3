//! A layer outside its shard: whoever goes on with the socket opens and seals by it.
//!
//! In its shard a layer counts the bytes of the write in flight for the outbound queue. Out here there is no queue,
//! so what is sealed counts as taken at once, and its new owner keeps the order.

use super::layer::Layer;
use crate::base::outside::Seal;

impl Seal for Layer {
    fn open(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<bool, String> {
        let ended = Self::open(self, bytes, plain).map_err(|fault| fault.to_string())?;
        Ok(ended || self.is_deaf())
    }

    fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        if self.has_output() {
            out.extend(self.take_output());
            self.sent();
        }
        if plain.is_empty() {
            return Ok(());
        }
        let parts = std::iter::once(plain);
        let sealed = Self::seal(self, parts, plain.len(), &mut Vec::new());
        out.extend(sealed.map_err(|fault| fault.to_string())?);
        self.sent();
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        Self::finish(self);
        out.extend(self.take_output());
        self.sent();
    }
}
