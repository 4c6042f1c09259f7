// ONNX files of one operation, written field by field (onnx.proto, protobuf's wire format), so that the comparison with
// onnxruntime-web needs no Python. Runs in Node and in pages.

/** @typedef {'float32' | 'float16' | 'int64'} Type */
/** @typedef {{ name: string, type: Type, dims: number[], data: ArrayBufferView }} Initializer */
/** @typedef {{ op: string, inputs: string[], outputs: string[], attributes?: Record<string, number | number[]> }} Node */
/** @typedef {{ name: string, dims: number[] }} Value */

/** TensorProto.DataType */
const types = { float32: 1, int64: 7, float16: 10 };

/** @param {number} value @returns {number[]} a varint */
function varint(value) {
  const bytes = [];
  let rest = BigInt.asUintN(64, BigInt(value)); // negative numbers take ten bytes, as protobuf's int64 does
  while (rest > 127n) { bytes.push(Number(rest & 127n) | 128); rest >>= 7n; }
  return [...bytes, Number(rest)];
}

/** @param {Uint8Array[]} parts */
function join(parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { out.set(part, at); at += part.length; }
  return out;
}

/** Field `number` as a varint. @param {number} number @param {number} value */
const int = (number, value) => Uint8Array.from([...varint(number << 3), ...varint(value)]);
/** As length and bytes. @param {number} number @param {Uint8Array} bytes */
const bytes = (number, bytes) =>
  join([Uint8Array.from([...varint((number << 3) | 2), ...varint(bytes.length)]), bytes]);
/** @param {number} number @param {string} value */
const text = (number, value) => bytes(number, new TextEncoder().encode(value));
/** @param {number} number @param {Uint8Array[]} fields */
const message = (number, ...fields) => bytes(number, join(fields));
/** @param {number} number @param {number} value */
const float = (number, value) =>
  join([Uint8Array.from(varint((number << 3) | 5)), new Uint8Array(Float32Array.of(value).buffer)]);

/** AttributeProto; whole numbers are ints, others floats. @param {[string, number | number[]]} entry */
function attribute([name, value]) {
  if (Array.isArray(value)) return message(5, text(1, name), ...value.map(v => int(8, v)), int(20, 7));
  return Number.isInteger(value)
    ? message(5, text(1, name), int(3, value), int(20, 2))
    : message(5, text(1, name), float(2, value), int(20, 1));
}

/** ValueInfoProto as field `number` of the graph. @param {number} number @param {Value} value @param {Type} type */
function valueInfo(number, { name, dims }, type) {
  const shape = message(2, ...dims.map(d => message(1, int(1, d))));
  return message(number, text(1, name), message(2, message(1, int(1, types[type]), shape)));
}

/**
 * @param {{ nodes: Node[], inputs: Value[], output: Value, initializers: Initializer[], type: Type }} graph
 *   type: of the inputs and the output
 * @returns {Uint8Array} a ModelProto of operator set 18
 */
export function onnxModel({ nodes, inputs, output, initializers, type }) {
  const graph = message(
    7,
    ...nodes.map(({ op, inputs, outputs, attributes = {} }) =>
      message(
        1,
        ...inputs.map(name => text(1, name)),
        ...outputs.map(name => text(2, name)),
        text(4, op),
        ...Object.entries(attributes).map(attribute),
      ),
    ),
    text(2, 'operation'),
    ...initializers.map(({ name, type, dims, data }) =>
      message(
        5,
        ...dims.map(d => int(1, d)),
        int(2, types[type]),
        text(8, name),
        bytes(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
      ),
    ),
    ...inputs.map(value => valueInfo(11, value, type)),
    valueInfo(12, output, type),
  );
  return join([int(1, 9), text(2, 'browser-diffusion bench'), graph, message(8, text(1, ''), int(2, 18))]);
}
