export interface NoticeItem {
  title?: string;
  read: boolean;
  message: any;
  time: string;
}

export const notices: NoticeItem[] = [];
export default () => ({ addNotice: (notice: NoticeItem) => void notices.push(notice) });
