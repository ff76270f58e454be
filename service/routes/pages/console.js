// The buttons of each model score its example, or an input of the user, and show the response and its explanation.

const MAX_OPACITY = 0.6;

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function base64Of(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

// The user's picture or text, or the example.
async function inputOf(form) {
  const [file] = form.querySelector("input[type=file]")?.files ?? [];
  if (file) return { image: await base64Of(file) };
  const text = form.querySelector("textarea")?.value;
  return text === undefined ? JSON.parse(form.dataset.example) : { text };
}

function heatMap(form, input, explanation, legend) {
  const figure = element("figure");
  const pair = element("div", form.dataset.crops === "true" ? "beside" : "overlay");
  for (const [className, data, label] of [
    ["input", input.image, "the input"],
    ["heat", explanation.heat_map, "the heat map"],
  ]) {
    const image = element("img", className);
    image.src = `data:;base64,${data}`;
    image.alt = label;
    pair.append(image);
  }
  figure.append(pair, element("figcaption", "", legend));
  return figure;
}

// Words in red if their value is positive and in blue if it is negative; the strongest colour is the largest value.
function colouredTokens(tokens, legend) {
  const figure = element("figure");
  const line = element("p", "tokens");
  const largest = Math.max(...tokens.map(({ value }) => Math.abs(value ?? 0)), Number.MIN_VALUE);
  for (const { token, value } of tokens) {
    const word = element("span", "", token);
    if (value === null) {
      word.className = "unknown";
      word.title = "not computed";
    } else {
      const opacity = (MAX_OPACITY * Math.abs(value)) / largest;
      word.style.backgroundColor = value > 0 ? `rgb(214 40 40 / ${opacity})` : `rgb(30 100 200 / ${opacity})`;
      word.title = value.toPrecision(3);
    }
    line.append(word, " ");
  }
  figure.append(line, element("figcaption", "", legend));
  return figure;
}

const VIEWS = {
  evidence: (form, input, explanation, result) =>
    heatMap(
      form,
      input,
      explanation,
      `Red positions speak for ${result.prediction.label}, blue ones against it: together, and with ` +
        `${explanation.bias.toPrecision(3)}, they are its logit ${explanation.logit.toPrecision(3)}.`,
    ),
  pixels: (form, input, explanation) =>
    heatMap(form, input, explanation, `Brighter pixels cost more bits, up to ${explanation.max_bits.toPrecision(3)}.`),
  tokens: (_form, _input, explanation) =>
    colouredTokens(
      explanation.tokens.map(({ token, bits }) => ({ token, value: bits })),
      "Tokens of a stronger red cost more bits.",
    ),
  token_changes: (_form, _input, explanation) =>
    colouredTokens(
      explanation.tokens.map(({ token, change }) => ({ token, value: change })),
      `Red tokens raise the anomaly of ${explanation.score}, blue ones lower it: by what it would be without them.`,
    ),
};

function neighbourList(neighbours) {
  const list = element("ol", "neighbours");
  for (const { label, source, distance } of neighbours) {
    const item = element("li", "", `${label} `);
    item.append(element("code", "", source), ` at distance ${distance.toPrecision(3)}`);
    list.append(item);
  }
  return list;
}

function view(form, input, result) {
  const parts = [];
  if (result.explanation) parts.push(VIEWS[result.explanation.kind](form, input, result.explanation, result));
  if (result.neighbours) parts.push(element("p", "", "Nearest training examples:"), neighbourList(result.neighbours));
  return parts;
}

async function score(form, explain) {
  const shown = form.querySelector(".explanation");
  const output = form.querySelector("pre");
  shown.replaceChildren();
  try {
    const input = await inputOf(form);
    const response = await fetch(form.dataset.url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(explain ? { inputs: [input], explain } : { inputs: [input] }),
    });
    const content = await response.json();
    const [result] = content.results ?? [];
    if (explain && result) shown.replaceChildren(...view(form, input, result));
    output.textContent = JSON.stringify(content, null, 2);
  } catch (error) {
    output.textContent = String(error);
  }
}

for (const form of document.querySelectorAll(".try")) {
  for (const button of form.querySelectorAll("button")) {
    button.addEventListener("click", async () => {
      button.disabled = true;
      await score(form, button.classList.contains("explain"));
      button.disabled = false;
    });
  }
}
