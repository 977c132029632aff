// The loader's hook for a Node whose hooks live on a thread of their own (before 22.15).
import { graft } from "./graft.cjs";

export async function load(url, context, nextLoad) {
  return graft(url, await nextLoad(url, context));
}
