export const user = { userId: '' as string | number };
export default () => user;
