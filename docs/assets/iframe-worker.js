/*
 * Two changes to the worker that searches the site.
 *
 * Pages opened as files: browsers refuse workers there, so the worker's script runs in a hidden frame. Messages are
 * copied, as between a page and a worker: the search keeps and changes the query that it was sent.
 *
 * Guides first: a match in a title ranks above one in a text, and most titles are names of functions. The worker gets
 * those of the reference without their titles; their texts begin with the same name.
 */
(() => {
  const InFrame = class extends EventTarget {
    constructor(address) {
      super();
      this.onmessage = this.onerror = this.onmessageerror = null;
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.documentElement.append(this.frame);

      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => this.#deliver(new MessageEvent("message", { data: structuredClone(data) }));
      const script = inside.document.createElement("script");
      script.src = new URL(address, document.baseURI).href;
      script.onerror = () => this.#deliver(new Event("error", { cancelable: true }));
      script.onload = () => {
        const waiting = this.waiting;
        this.waiting = null;
        waiting.forEach((event) => this.#send(event));
      };
      inside.document.head.append(script);
    }

    postMessage(data) {
      const event = new MessageEvent("message", { data: structuredClone(data) });
      if (this.waiting) {
        this.waiting.push(event);
      } else {
        this.#send(event);
      }
    }

    terminate() {
      this.frame.remove();
    }

    #send(event) {
      setTimeout(() => this.frame.contentWindow?.onmessage?.(event));
    }

    #deliver(event) {
      setTimeout(() => {
        this[`on${event.type}`]?.(event);
        this.dispatchEvent(event);
      });
    }
  };

  const guidesFirst = (message) => {
    const items = message?.data?.items;
    if (!items) {
      return message;
    }
    const untitled = (item) => (item.location.includes("/api/") ? { ...item, title: "" } : item);
    return { ...message, data: { ...message.data, items: items.map(untitled) } };
  };

  const Base = location.protocol === "file:" ? InFrame : window.Worker;
  window.Worker = class extends Base {
    postMessage(message, ...rest) {
      super.postMessage(guidesFirst(message), ...rest);
    }
  };
})();
