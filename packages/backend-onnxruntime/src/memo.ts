/** What is made once, by name, and made anew when so many others have been made since that all were let go. */
export class Memo {
  readonly #made = new Map<string, unknown>();
  readonly #limit: number;

  constructor(limit: number = Number.POSITIVE_INFINITY) {
    this.#limit = limit;
  }

  once<T>(name: string, make: () => T): T {
    let made = this.#made.get(name);
    if (made === undefined) {
      made = make();
      if (this.#made.size >= this.#limit) this.#made.clear();
      this.#made.set(name, made);
    }
    return made as T;
  }
}
