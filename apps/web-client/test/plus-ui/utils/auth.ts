export const login = { token: null as string | null };
export const getToken = () => login.token;
