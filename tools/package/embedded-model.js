/** The package's own part of the embedded model: CLIP's vocabulary, which checkpoints of one file lack. */
export const EMBEDDED = {
  embedded: 'https://embedded.invalid',
  addresses: {
    'tokenizer/vocab.json': new URL('./tokenizer/vocab.json', import.meta.url).href,
    'tokenizer/merges.txt': new URL('./tokenizer/merges.txt', import.meta.url).href,
  },
};
