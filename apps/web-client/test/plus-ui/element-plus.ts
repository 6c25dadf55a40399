// What a page has shown.
export const shown: { title: string; message: string; type: string; duration: number }[] = [];
export const ElNotification = (notification: (typeof shown)[number]) => void shown.push(notification);
