// The example with what stands in for the rest of plus-ui.
export * from '../../examples/plus-ui.js';
export { shown } from 'element-plus';
export { login } from '@/utils/auth';
export { notices } from '@/store/modules/notice';
export { user } from '@/store/modules/user';
