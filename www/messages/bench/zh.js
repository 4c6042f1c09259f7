/** What bench.html's scripts say in Simplified Chinese. @type {typeof import('./en.js').messages} */
export const messages = {
  'peaks': '显卡的最高性能',
  'step': (precision) => `UNet 单步，${precision}`,
  'done': '完成。',
  'failed': '出错前测得的结果列在下面。',
  'copied': '已复制。',
  'error.details': '详细信息（英文）',
  'error': '测速没有完成。请确认浏览器支持 WebGPU 且显存足够，或取消勾选“整个 UNet”后重试。',
  'about': ({ name, subgroups, browser, date, peak, half, copy, load, wrong }) =>
    `${name}${subgroups ? `，子组大小 ${subgroups}` : ''}；${browser}；${date}。实测峰值：f32 ${peak} TFLOP/s，` +
    `${half ? `f16 ${half} TFLOP/s` : '不支持 shader-f16'}，复制 ${copy} GB/s。` +
    `引擎加载用时 ${load} 毫秒。${wrong ? `在此显卡上结果有误、未使用的：${wrong}。` : ''}`,
  'unnamed': '未命名的显卡',
  'head.operation': '运算',
  'head.precision': '精度',
  'head.peak': '占峰值',
  'head.what': '项目',
  'head.product': '行 × 输出通道 × 输入',
  'head.dispatches': '调度次数',
  'row.step': '单步，毫秒',
  'row.prepare': '权重与计划，毫秒',
  'row.first': '首步（含编译），毫秒',
  'row.memory': '峰值显存，MB',
  'row.counters': '调度次数，提交次数',
  'row.moved': '读写量，GB',
  'row.encoding': '编码，毫秒',
  'head.workgroups': '工作组',
  'head.bytes': '字节/FLOP',
  'head.loads': '加载/FMA',
  'head.registers': '寄存器',
  'row.kernel': (name) => `${name}，毫秒`,
};
